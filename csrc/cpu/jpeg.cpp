#include "cpu/jpeg.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

// Needs the C declarations above.
#include <jpeglib.h>

namespace imagen_fast {

namespace {

// Beyond this Pillow calls an image a decompression bomb; so do we, before memory is taken for it.
constexpr std::int64_t most_pixels = 178956970;

struct Errors {
    jpeg_error_mgr base;
    std::jmp_buf jump;
};

[[noreturn]] void leave(j_common_ptr codec) { std::longjmp(reinterpret_cast<Errors*>(codec->err)->jump, 1); }

// Counts warnings as the library does (the caller looks at the count), prints nothing.
void note(j_common_ptr codec, int level) {
    if (level < 0) ++codec->err->num_warnings;
}

// libjpeg reports an error by a longjmp. It lands in one of the methods below, and no object with a
// destructor lives in a frame that it crosses: only then is an exception thrown.
class Decoder {
public:
    Decoder(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {
        std::memset(&codec_, 0, sizeof codec_);
        codec_.err = jpeg_std_error(&errors_.base);
        errors_.base.error_exit = leave;
        errors_.base.emit_message = note;
        if (!create()) fail();
    }
    ~Decoder() { jpeg_destroy_decompress(&codec_); }
    Decoder(const Decoder&) = delete;
    Decoder& operator=(const Decoder&) = delete;

    JpegSize open() {
        if (!read_header()) fail();
        const JpegSize size{codec_.image_width, codec_.image_height};
        if (codec_.num_components != 1 && codec_.num_components != 3)
            throw JpegError("the JPEG has " + std::to_string(codec_.num_components) +
                            " colour components; 1 and 3 are decoded");
        if (size.width * size.height > most_pixels)
            throw JpegError("the JPEG has " + std::to_string(size.width * size.height) + " pixels; at most " +
                            std::to_string(most_pixels) + " are decoded");
        return size;
    }

    void decode(const Region& region, std::uint8_t* out) {
        if (!ends()) throw JpegError("the JPEG is truncated: it has no end marker");
        if (!start(region)) fail();
        row_.resize(static_cast<std::size_t>(codec_.output_width) * 3);
        if (!read_rows(region, out)) fail();
        if (errors_.base.num_warnings) fail("the JPEG is corrupt: ");
    }

private:
    bool create() {
        if (setjmp(errors_.jump)) return false;
        jpeg_create_decompress(&codec_);
        return true;
    }

    bool read_header() {
        if (setjmp(errors_.jump)) return false;
        jpeg_mem_src(&codec_, data_, static_cast<unsigned long>(size_));
        jpeg_read_header(&codec_, TRUE);
        return true;
    }

    // A region may end long before the file does, so whether the file is whole is asked here. The marker
    // cannot occur inside the coded data, where a byte 0xff is always stuffed.
    bool ends() const {
        for (const std::uint8_t* p = data_ + size_ - 2; p >= codec_.src->next_input_byte; --p)
            if (p[0] == 0xff && p[1] == 0xd9) return true;
        return false;
    }

    // Interpolating the colour takes one more pixel on either side, and at least three columns of colour:
    // 4:1:1 halves the width twice. The library rounds the left edge down to a block; rows are skipped only
    // at the top, since skipping later rows can go wrong (libjpeg-turbo #915).
    bool start(const Region& region) {
        if (setjmp(errors_.jump)) return false;
        codec_.out_color_space = JCS_RGB;
        jpeg_start_decompress(&codec_);
        const std::int64_t width = codec_.output_width;
        constexpr std::int64_t narrowest = 16;
        const std::int64_t left = std::max<std::int64_t>(0, std::min(region.left - 1, width - narrowest));
        const std::int64_t right = std::min(width, std::max(region.right + 1, left + narrowest));
        origin_ = static_cast<JDIMENSION>(left);
        if (left > 0 || right < width) {
            JDIMENSION span = static_cast<JDIMENSION>(right - left);
            jpeg_crop_scanline(&codec_, &origin_, &span);
        }
        if (region.top > 0) jpeg_skip_scanlines(&codec_, static_cast<JDIMENSION>(region.top));
        return true;
    }

    bool read_rows(const Region& region, std::uint8_t* out) {
        if (setjmp(errors_.jump)) return false;
        const std::size_t bytes = static_cast<std::size_t>(region.right - region.left) * 3;
        const std::size_t offset = static_cast<std::size_t>(region.left - origin_) * 3;
        const bool whole = bytes == row_.size();
        for (std::int64_t y = region.top; y < region.bottom; ++y) {
            std::uint8_t* to = out + static_cast<std::size_t>(y - region.top) * bytes;
            JSAMPROW row = whole ? to : row_.data();
            jpeg_read_scanlines(&codec_, &row, 1);
            if (!whole) std::memcpy(to, row + offset, bytes);
        }
        return true;
    }

    [[noreturn]] void fail(const char* prefix = "") {
        char message[JMSG_LENGTH_MAX];
        errors_.base.format_message(reinterpret_cast<j_common_ptr>(&codec_), message);
        throw JpegError(prefix + std::string(message));
    }

    const std::uint8_t* data_;
    std::size_t size_;
    jpeg_decompress_struct codec_;
    Errors errors_;
    JDIMENSION origin_ = 0;  // the image's column that the first decoded one is
    std::vector<std::uint8_t> row_;
};

}  // namespace

JpegSize jpeg_size(const std::uint8_t* data, std::size_t size) { return Decoder(data, size).open(); }

void decode_jpeg(const std::uint8_t* data, std::size_t size, const Region& region, std::uint8_t* out) {
    Decoder decoder(data, size);
    const JpegSize image = decoder.open();
    if (region.left < 0 || region.top < 0 || region.left >= region.right || region.top >= region.bottom ||
        region.right > image.width || region.bottom > image.height)
        throw std::invalid_argument("the region must be a non-empty part of the image");
    decoder.decode(region, out);
}

}  // namespace imagen_fast
