// What is seen of an image, and where its pixels lie in a file that is not stored upright.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/region.h"

namespace imagen_fast {

// Part of an upright image, resampled to wide x high pixels as if there were nothing around it. Of these the
// view has those from (left, top) on, as many as the output has.
struct View {
    Region box;
    std::int64_t wide, high, left, top;
    bool mirrored;
};

// Raises std::invalid_argument where a view of width x height pixels cannot be had of an image of this size.
inline void check_view(const View& view, JpegSize size, std::int64_t width, std::int64_t height) {
    const Region& box = view.box;
    if (view.left < 0 || view.top < 0 || view.wide - view.left < width || view.high - view.top < height)
        throw std::invalid_argument("the window must lie within what the box is resized to");
    if (box.left < 0 || box.top < 0 || box.left >= box.right || box.top >= box.bottom ||
        box.right > size.width || box.bottom > size.height)
        throw std::invalid_argument("the box must be a non-empty part of the image's " +
                                    std::to_string(size.width) + "x" + std::to_string(size.height) +
                                    " pixels");
    // With more inputs an output's weights would be too small for 16 bits.
    constexpr std::int64_t most_step = 8192;
    if (box.width() > most_step * view.wide || box.height() > most_step * view.high)
        throw std::invalid_argument("a box may shrink to a " + std::to_string(most_step) +
                                    "th of its side, not further");
}

// EXIF's orientations from 5 on have rows that stand upright.
inline bool turned(int orientation) { return orientation >= 5; }

// Whether the upright image's first column, or first row, is the stored one's last, after such a turn.
inline bool from_right(int orientation) {
    return orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
}
inline bool from_below(int orientation) {
    return orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
}

inline JpegSize upright(JpegSize stored, int orientation) {
    return turned(orientation) ? JpegSize{stored.height, stored.width} : stored;
}

// Where the upright pixel (x, y) of an image of this stored size lies.
struct Place {
    std::int64_t x, y;
};
inline Place stored_place(int orientation, JpegSize stored, std::int64_t x, std::int64_t y) {
    if (turned(orientation)) std::swap(x, y);
    return {from_right(orientation) ? stored.width - 1 - x : x,
            from_below(orientation) ? stored.height - 1 - y : y};
}

inline Region stored_region(int orientation, JpegSize stored, const Region& region) {
    const Place a = stored_place(orientation, stored, region.left, region.top);
    const Place b = stored_place(orientation, stored, region.right - 1, region.bottom - 1);
    return {a.x < b.x ? a.x : b.x, a.y < b.y ? a.y : b.y, (a.x < b.x ? b.x : a.x) + 1,
            (a.y < b.y ? b.y : a.y) + 1};
}

}  // namespace imagen_fast
