// JPEG to RGB bytes, the whole image or a region, equal to libjpeg-turbo's full decode: by our own decoder
// where the file is plain, else by that library, which also reads the headers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

#include "common/region.h"

namespace imagen_fast {

// This decoder does not vouch for the file. The caller may ask a more lenient one.
struct JpegError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Beyond this Pillow calls an image a decompression bomb, unless it is told otherwise.
constexpr std::int64_t MOST_PIXELS = 178956970;

// Decodes one file after another.
class JpegReader {
public:
    // `ours`: plain files go to our own decoder, which is faster; the pixels are the same.
    explicit JpegReader(bool ours = true);
    ~JpegReader();
    JpegReader(const JpegReader&) = delete;
    JpegReader& operator=(const JpegReader&) = delete;

    // The bytes must stay until the last row was read. More pixels are refused before memory is taken for
    // them.
    JpegSize open(const std::uint8_t* data, std::size_t size, std::int64_t most_pixels = MOST_PIXELS);

    // EXIF's, 1 to 8; 0 where it takes a more lenient reader to say.
    int orientation() const;

    // The size at `eighths` / 8 of the scale.
    JpegSize scaled(int eighths) const;

    // `region` is of the scaled image.
    void start(const Region& region, int eighths = 8);

    // The region's next rows, RGB, as many as were asked for and are left; they stay until the next call.
    struct Rows {
        std::uint8_t* pixels;  // the caller may change them
        std::int64_t count, pitch;
    };
    Rows rows(std::int64_t most);

    // After the last row: raises where something was wrong with the file.
    void finish();

    // For tests: whether our own decoder has the region that was started.
    bool is_ours() const;

    // For tests: what our own decoder reads of the file that is open, all blocks in the order of coding, 64
    // numbers each, row by row. False where that decoder leaves the file to the library.
    bool coefficients(std::vector<std::int16_t>& out);

private:
    void start_library();

    struct Codec;
    std::unique_ptr<Codec> codec_;
    bool ours_;
};

JpegSize jpeg_size(const std::uint8_t* data, std::size_t size);

// out [bottom - top, right - left, 3]
void decode_jpeg(const std::uint8_t* data, std::size_t size, const Region& region, std::uint8_t* out);

}  // namespace imagen_fast
