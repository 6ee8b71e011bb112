#include "cuda/jpeg_header.h"

#include <stdexcept>
#include <string_view>

#include "cpu/exif.h"

namespace imagen_fast {

namespace {

using namespace std::string_view_literals;

[[noreturn]] void refuse(const char* why) { throw std::invalid_argument(why); }

// The contents of a segment; its numbers have the greater byte first.
struct Segment {
    const std::uint8_t* data;
    std::size_t size;

    std::int64_t two(std::size_t at) const { return data[at] << 8 | data[at + 1]; }
    bool begins_with(std::string_view name) const {
        return std::string_view(reinterpret_cast<const char*>(data), size).substr(0, name.size()) == name;
    }
};

// The colours as libjpeg guesses them: by the first of JFIF, Adobe's segment and the components' names.
class Colours {
public:
    void segment(std::uint8_t marker, const Segment& segment) {
        if (marker == 0xe0 && segment.size >= 14 && segment.begins_with("JFIF\0"sv)) jfif_ = true;
        if (marker == 0xee && segment.size >= 12 && segment.begins_with("Adobe"sv)) {
            adobe_ = true;
            transform_ = segment.data[11];
        }
    }
    bool rgb(const std::uint8_t names[3]) const {
        if (jfif_) return false;
        return adobe_ ? transform_ == 0 : names[0] == 'R' && names[1] == 'G' && names[2] == 'B';
    }

private:
    bool jfif_ = false, adobe_ = false;
    int transform_ = 0;
};

// A frame header: its size, and whether its colours are stored in a way that both decoders read alike.
JpegSize read_frame(std::uint8_t marker, const Segment& frame, const Colours& colours) {
    if (marker > 0xc2) refuse("the JPEG is lossless, hierarchical or coded arithmetically");
    if (frame.size < 6) refuse("the JPEG's frame is too short");
    if (frame.data[0] != 8) refuse("the JPEG has other than 8 bits a colour");
    const JpegSize size{frame.two(3), frame.two(1)};
    const std::size_t components = frame.data[5];
    if (size.width == 0 || size.height == 0) refuse("the JPEG does not say its size");
    if (components != 1 && components != 3) refuse("the JPEG has other than 1 or 3 colour components");
    if (frame.size < 6 + 3 * components) refuse("the JPEG's frame is too short");
    if (components == 1) return size;
    const std::uint8_t* c = frame.data + 6;
    const std::uint8_t names[] = {c[0], c[3], c[6]};
    if (colours.rgb(names)) refuse("the JPEG's colours are not YCbCr");
    const int across = c[1] >> 4, down = c[1] & 15;
    if (across < 1 || across > 2 || down < 1 || down > 2 || c[4] != 0x11 || c[7] != 0x11)
        refuse("the JPEG's colours have an unusual resolution");
    return size;
}

}  // namespace

JpegHeader read_jpeg_header(const std::uint8_t* data, std::size_t size) {
    if (size < 4 || data[0] != 0xff || data[1] != 0xd8) refuse("the file is no JPEG");
    JpegSize stored{0, 0};
    Segment frame{nullptr, 0};
    std::uint8_t frame_marker = 0;
    Colours colours;
    ExifOrientation exif;
    std::size_t at = 2;
    for (;;) {
        if (at + 4 > size || data[at] != 0xff) refuse("the JPEG's header is irregular");
        const std::uint8_t marker = data[at + 1];
        if (marker == 0xff) {  // padding
            ++at;
            continue;
        }
        if (marker < 0xc0 || (marker >= 0xd0 && marker <= 0xd9)) refuse("the JPEG's header is irregular");
        const Segment whole{data + at + 2, size - at - 2};
        const auto length = static_cast<std::size_t>(whole.two(0));
        if (length < 2 || length > whole.size) refuse("the JPEG's header is cut short");
        const Segment segment{whole.data + 2, length - 2};
        at += 2 + length;
        if (marker == 0xda) break;
        colours.segment(marker, segment);
        if (marker >= 0xe0 && marker <= 0xef) exif.segment(marker - 0xe0, segment.data, segment.size);
        const bool tables = marker == 0xc4 || marker == 0xc8 || marker == 0xcc;
        if (marker <= 0xcf && !tables) {
            if (frame.data) refuse("the JPEG has several frames");
            frame = segment;
            frame_marker = marker;
        }
    }
    if (!frame.data) refuse("the JPEG has no frame");
    stored = read_frame(frame_marker, frame, colours);
    const int orientation = exif.value();
    if (!orientation) refuse("the orientation is not plain");
    // It cannot occur inside the coded data, where a byte 0xff is always stuffed.
    for (std::size_t end = size - 1; end > at; --end)
        if (data[end - 1] == 0xff && data[end] == 0xd9) return {stored, orientation};
    refuse("the JPEG is truncated: it has no end marker");
}

}  // namespace imagen_fast
