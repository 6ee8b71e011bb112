#include "cpu/baseline.h"

#include <algorithm>
#include <cstring>

#include "cpu/jpeg_colour.h"

namespace imagen_fast {

#if defined(IMAGEN_FAST_X86)

namespace {

constexpr std::int64_t over(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The nearest row of colours at half the height, and the one that is a quarter of the result.
struct Between {
    std::int64_t near, further;
};
Between between(std::int64_t y, std::int64_t rows) {
    const std::int64_t near = y / 2;
    return {near, std::clamp<std::int64_t>(y % 2 ? near + 1 : near - 1, 0, rows - 1)};
}

// Takes the stuffed zeros out, up to a marker or the end; says where in the file that is.
const std::uint8_t* unstuff(const std::uint8_t* from, const std::uint8_t* end, std::uint8_t*& to) {
    for (;;) {
        const auto left = static_cast<std::size_t>(end - from);
        const void* found = std::memchr(from, 0xff, left);
        const auto* stop = found ? static_cast<const std::uint8_t*>(found) : end;
        std::memcpy(to, from, static_cast<std::size_t>(stop - from));
        to += stop - from;
        if (end - stop < 2 || stop[1] != 0) return stop;
        *to++ = 0xff;
        from = stop + 2;
    }
}

}  // namespace

bool BaselineDecoder::set_image(const BaselineImage& image, int eighths) {
    if (instruction_set() < InstructionSet::avx2) return false;
    components_ = image.components;
    if (components_ != 1 && components_ != 3) return false;
    // Of a single component the factors mean nothing.
    const int most_across = components_ == 1 ? 1 : image.component[0].across;
    const int most_down = components_ == 1 ? 1 : image.component[0].down;
    if (most_across > 2 || most_down > 2) return false;

    layout_.blocks = 0;
    for (int c = 0; c < components_; ++c) {
        const BaselineComponent& from = image.component[c];
        const int across = components_ == 1 ? 1 : from.across, down = components_ == 1 ? 1 : from.down;
        if (c && (across != 1 || down != 1)) return false;

        // Components often share a table, which then should be in the cache once.
        int table = c;
        for (int other = 0; other < c; ++other)
            if (image.component[other].ac.counts == from.ac.counts &&
                image.component[other].dc.counts == from.dc.counts) {
                table = other;
                break;
            }
        if (table == c && !(dc_[c].set(from.dc) && ac_[c].set(from.ac))) return false;
        for (int i = 0; i < 64; ++i)
            quantisation_[c][coefficient_place(i / 8, i % 8)] =
                static_cast<std::int16_t>(from.quantisation[i]);

        // At a smaller scale a component of lower resolution may be had at a larger one instead.
        int side = eighths;
        while (side < 8 && most_across * eighths % (across * side * 2) == 0 &&
               most_down * eighths % (down * side * 2) == 0)
            side *= 2;
        Plane& plane = planes_[c];
        plane.width = over(image.width * across * side, 8 * most_across);
        plane.height = over(image.height * down * side, 8 * most_down);
        plane.wide = across * side == most_across * eighths;
        plane.high = down * side == most_down * eighths;
        // What libjpeg interpolates otherwise.
        if ((plane.wide && !plane.high) || (!plane.wide && (eighths == 1 || plane.width <= 2))) return false;

        McuComponent& component = layout_.component[c];
        component = {&dc_[table], &ac_[table], quantisation_[c],
                     side,        0,           static_cast<std::int64_t>(across) * side};
        plane.mcu_height = static_cast<std::int64_t>(down) * side;
        for (int i = 0; i < across * down; ++i)
            layout_.block[layout_.blocks++] = {c, i % across, i / across, 0};
    }
    mcus_across_ = over(image.width, 8 * most_across);
    mcus_down_ = over(image.height, 8 * most_down);

    coming_ = image.code;
    end_ = image.end;
    const auto most = static_cast<std::size_t>(image.end - image.code + CODE_SLACK);
    if (code_.size() < most) code_.resize(most);
    interval_ = image.restart_interval;
    restarts_ = 0;
    next_mcu_row_ = 0;
    begin_segment();
    return true;
}

void BaselineDecoder::begin_segment() {
    std::uint8_t* to = code_.data();
    coming_ = unstuff(coming_, end_, to);
    reader_ = {0, 0, code_.data(), to};
    left_in_interval_ = interval_;
    std::fill(last_, last_ + MOST_COMPONENTS, 0);
}

bool BaselineDecoder::restart() {
    const std::int64_t expected = 0xd0 + restarts_++ % 8;
    // Whole bytes that nobody wanted are a sign that something is wrong.
    if (reader_.next - (reader_.valid >> 3) != reader_.end || end_ - coming_ < 2 || coming_[1] != expected)
        return false;
    coming_ += 2;
    begin_segment();
    return true;
}

// Calls decode(count, done) for runs of MCUs between restarts.
template <class Decode>
bool BaselineDecoder::each_run(std::int64_t count, Decode decode) {
    for (std::int64_t done = 0; done < count;) {
        std::int64_t run = count - done;
        if (interval_) {
            if (!left_in_interval_ && !restart()) return false;
            run = std::min(run, left_in_interval_);
            left_in_interval_ -= run;
        }
        if (!decode(run, done)) return false;
        done += run;
    }
    return true;
}

bool BaselineDecoder::start(const BaselineImage& image, const Region& region, int eighths) {
    if (!set_image(image, eighths)) return false;
    region_ = region;
    next_row_ = region.top;
    broken_ = false;

    first_mcu_ = mcus_across_;
    last_mcu_ = 0;
    first_mcu_row_ = mcus_down_;
    for (int c = 0; c < components_; ++c) {
        const Plane& plane = planes_[c];
        const std::int64_t across = layout_.component[c].step;
        std::int64_t left = region.left, right = region.right - 1, top = region.top;
        if (!plane.wide) {
            left = std::max<std::int64_t>(left / 2 - 1, 0);
            right = std::min(right / 2 + 1, plane.width - 1);
        }
        if (!plane.high) top = std::min(between(top, plane.height).near, between(top, plane.height).further);
        first_mcu_ = std::min(first_mcu_, left / across);
        last_mcu_ = std::max(last_mcu_, right / across + 1);
        first_mcu_row_ = std::min(first_mcu_row_, top / plane.mcu_height);
    }
    for (int c = 0; c < components_; ++c) {
        Plane& plane = planes_[c];
        McuComponent& component = layout_.component[c];
        constexpr std::int64_t slack = 64;  // that kernels may read beyond a row
        plane.left = first_mcu_ * component.step;
        component.pitch = BEFORE + (last_mcu_ - first_mcu_) * component.step + slack;
        plane.pitch = component.pitch;
        // Interpolation looks from one row of MCUs into the next.
        plane.rows = 2 * plane.mcu_height;
        plane.pixels.resize(static_cast<std::size_t>(plane.rows * plane.pitch + slack));
        widened_[c].resize(static_cast<std::size_t>(region.width() + 2 * slack));
    }
    for (int b = 0; b < layout_.blocks; ++b) {
        McuBlock& block = layout_.block[b];
        const McuComponent& component = layout_.component[block.component];
        block.offset = (block.row * component.pitch + block.column) * component.side;
    }
    pitch_ = over(region.width(), 16) * 48 + JPEG_ROW_SLACK;
    lines_.resize(static_cast<std::size_t>(pitch_ * MOST_JPEG_ROWS));
    // Gray is a colour whose other components are in the middle.
    if (components_ == 1)
        for (int c : {1, 2}) widened_[c].assign(static_cast<std::size_t>(region.width() + 16), 128);
    return true;
}

bool BaselineDecoder::decode_mcu_row() {
    const bool kept = next_mcu_row_ >= first_mcu_row_;
    std::uint8_t* planes[MOST_COMPONENTS] = {};
    const auto decode = [&](bool keep) {
        return [&, keep](std::int64_t count, std::int64_t done) {
            std::uint8_t* at[MOST_COMPONENTS] = {};
            for (int c = 0; c < components_ && keep; ++c)
                at[c] = planes[c] + done * layout_.component[c].step;
            return IMAGEN_FAST_BEST_VECTOR(decode_mcus)(reader_, layout_, last_, count, keep ? at : nullptr);
        };
    };
    if (!kept) {
        ++next_mcu_row_;
        return each_run(mcus_across_, decode(false));
    }
    for (int c = 0; c < components_; ++c) planes[c] = planes_[c].row(next_mcu_row_ * planes_[c].mcu_height);
    if (!each_run(first_mcu_, decode(false)) || !each_run(last_mcu_ - first_mcu_, decode(true)) ||
        !each_run(mcus_across_ - last_mcu_, decode(false)))
        return false;

    // What is beyond the image is as its last pixel.
    for (int c = 0; c < components_; ++c) {
        Plane& plane = planes_[c];
        const std::int64_t width = plane.width - plane.left;
        if (plane.wide) continue;
        for (std::int64_t y = 0; y < plane.mcu_height; ++y) {
            std::uint8_t* row = planes[c] + y * plane.pitch;
            if (!plane.left) row[-1] = row[0];
            if (width <= (last_mcu_ - first_mcu_) * layout_.component[c].step) row[width] = row[width - 1];
        }
    }
    ++next_mcu_row_;
    return true;
}

// The last row of MCUs that row y is made of.
std::int64_t BaselineDecoder::mcu_row(std::int64_t y) const {
    std::int64_t last = y / planes_[0].mcu_height;
    for (int c = 1; c < components_; ++c) {
        const Plane& plane = planes_[c];
        const Between rows = plane.high ? Between{y, y} : between(y, plane.height);
        last = std::max(last, std::max(rows.near, rows.further) / plane.mcu_height);
    }
    return last;
}

const std::uint8_t* BaselineDecoder::row_of(int c, std::int64_t y) {
    Plane& plane = planes_[c];
    if (plane.wide) return plane.row(y) + region_.left - plane.left;
    const std::int64_t first = region_.left / 2, count = (region_.right - 1) / 2 + 1 - first;
    const std::int64_t at = first - plane.left;
    if (plane.high) {
        IMAGEN_FAST_BEST_VECTOR(widen)(plane.row(y) + at, count, widened_[c].data());
    } else {
        const Between rows = between(y, plane.height);
        IMAGEN_FAST_BEST_VECTOR(widen_between)
        (plane.row(rows.near) + at, plane.row(rows.further) + at, count, widened_[c].data());
    }
    return widened_[c].data() + region_.left % 2;
}

std::int64_t BaselineDecoder::rows(std::int64_t most) {
    const std::int64_t count = std::min({most, MOST_JPEG_ROWS, region_.bottom - next_row_});
    for (std::int64_t i = 0; i < count; ++i, ++next_row_) {
        while (!broken_ && next_mcu_row_ <= mcu_row(next_row_)) broken_ = !decode_mcu_row();
        if (broken_) return i;
        const std::uint8_t* luma = row_of(0, next_row_);
        const std::uint8_t* blue = components_ == 1 ? widened_[1].data() : row_of(1, next_row_);
        const std::uint8_t* red = components_ == 1 ? widened_[2].data() : row_of(2, next_row_);
        IMAGEN_FAST_BEST_VECTOR(to_rgb)(luma, blue, red, region_.width(), lines_.data() + i * pitch_);
    }
    return count;
}

bool BaselineDecoder::coefficients(const BaselineImage& image, std::vector<std::int16_t>& out) {
    if (!set_image(image, 8)) return false;
    out.resize(static_cast<std::size_t>(mcus_across_ * mcus_down_ * layout_.blocks * 64));
    std::int16_t* to = out.data();
    const bool good = each_run(mcus_across_ * mcus_down_, [&](std::int64_t count, std::int64_t) {
        const bool decoded = IMAGEN_FAST_BEST_VECTOR(decode_coefficients)(reader_, layout_, last_, count, to);
        to += count * layout_.blocks * 64;
        return decoded;
    });
    for (std::size_t block = 0; block < out.size(); block += 64) {
        std::int16_t ordered[64];
        for (int i = 0; i < 64; ++i) ordered[i] = out[block + coefficient_place(i / 8, i % 8)];
        std::copy(ordered, ordered + 64, out.begin() + static_cast<std::ptrdiff_t>(block));
    }
    return good;
}

#else

bool BaselineDecoder::start(const BaselineImage&, const Region&, int) { return false; }
std::int64_t BaselineDecoder::rows(std::int64_t) { return 0; }
bool BaselineDecoder::coefficients(const BaselineImage&, std::vector<std::int16_t>&) { return false; }

#endif

}  // namespace imagen_fast
