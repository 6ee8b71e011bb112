#include "against_library.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

// Needs the C declarations above.
#include <jpeglib.h>

#include "cpu/instruction_set.h"
#include "cpu/jpeg.h"

namespace imagen_fast {

namespace {

long compared = 0;

[[noreturn]] void differ(const std::string& what) {
    std::fprintf(stderr, "our own decoder and the library differ in %s\n", what.c_str());
    std::abort();
}

struct Errors {
    jpeg_error_mgr base;
    std::jmp_buf jump;
};
[[noreturn]] void leave(j_common_ptr codec) { std::longjmp(reinterpret_cast<Errors*>(codec->err)->jump, 1); }
void count(j_common_ptr codec, int level) { codec->err->num_warnings += level < 0; }

// False where the library finds fault with the file, or another scan after the first.
bool library_coefficients(const std::uint8_t* data, std::size_t size, std::vector<std::int16_t>& out) {
    jpeg_decompress_struct codec{};
    Errors errors;
    codec.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = leave;
    errors.base.emit_message = count;
    bool good = false;
    if (!setjmp(errors.jump)) {
        jpeg_create_decompress(&codec);
        jpeg_mem_src(&codec, data, static_cast<unsigned long>(size));
        jpeg_read_header(&codec, TRUE);
        jvirt_barray_ptr* arrays = jpeg_read_coefficients(&codec);
        good = errors.base.num_warnings == 0 && codec.input_scan_number == 1;
        const bool one = codec.num_components == 1;
        const int across = one ? 1 : codec.max_h_samp_factor, down = one ? 1 : codec.max_v_samp_factor;
        const int side_x = 8 * across, side_y = 8 * down;
        const auto mcus_x = (codec.image_width + side_x - 1) / side_x;
        const auto mcus_y = (codec.image_height + side_y - 1) / side_y;
        for (JDIMENSION my = 0; my < mcus_y && good; ++my)
            for (JDIMENSION mx = 0; mx < mcus_x; ++mx)
                for (int c = 0; c < codec.num_components; ++c) {
                    const jpeg_component_info& info = codec.comp_info[c];
                    const int h = one ? 1 : info.h_samp_factor, v = one ? 1 : info.v_samp_factor;
                    for (int y = 0; y < v; ++y) {
                        const JBLOCKROW row = codec.mem->access_virt_barray(
                            reinterpret_cast<j_common_ptr>(&codec), arrays[c], my * v + y, 1, FALSE)[0];
                        for (int x = 0; x < h; ++x) {
                            const JCOEF* block = row[mx * h + x];
                            out.insert(out.end(), block, block + 64);
                        }
                    }
                }
    }
    jpeg_destroy_decompress(&codec);
    return good;
}

struct Decoded {
    std::string failure;  // empty: none
    bool ours = false;
    std::vector<std::uint8_t> pixels;
};
Decoded decode(bool ours, const std::uint8_t* data, std::size_t size, int eighths, const Region& region) {
    Decoded decoded;
    try {
        JpegReader reader(ours);
        reader.open(data, size);
        reader.start(region, eighths);
        decoded.ours = reader.is_ours();
        const auto bytes = static_cast<std::size_t>(3 * region.width());
        for (std::int64_t left = region.height(); left > 0;) {
            const JpegReader::Rows rows = reader.rows(left);
            for (std::int64_t i = 0; i < rows.count; ++i) {
                const std::uint8_t* row = rows.pixels + i * rows.pitch;
                decoded.pixels.insert(decoded.pixels.end(), row, row + bytes);
            }
            left -= rows.count;
        }
        reader.finish();
    } catch (const JpegError& error) {
        decoded.failure = error.what();
    }
    return decoded;
}

std::vector<std::uint8_t> part_of(const std::vector<std::uint8_t>& image, std::int64_t width,
                                  const Region& region) {
    std::vector<std::uint8_t> part;
    for (std::int64_t y = region.top; y < region.bottom; ++y) {
        const auto row = image.begin() + 3 * (y * width + region.left);
        part.insert(part.end(), row, row + 3 * region.width());
    }
    return part;
}

// Either of the sets that there are kernels for.
class SomeInstructionSet {
public:
    explicit SomeInstructionSet(bool lesser) : best_(instruction_set()) {
        if (lesser && best_ > InstructionSet::avx2) use_instruction_set(InstructionSet::avx2);
    }
    ~SomeInstructionSet() { use_instruction_set(best_); }

private:
    const InstructionSet best_;
};

}  // namespace

long files_compared() { return compared; }

void compare_with_library(const std::uint8_t* data, std::size_t size, int eighths, int regions,
                          std::uint64_t seed) {
    std::mt19937_64 draws(seed);
    const auto below = [&draws](std::int64_t limit) {
        return static_cast<std::int64_t>(draws() % static_cast<std::uint64_t>(limit));
    };
    const SomeInstructionSet set(below(2));

    JpegReader reader;
    reader.open(data, size);
    std::vector<std::int16_t> ours, theirs;
    const bool plain = reader.coefficients(ours);
    compared += plain;
    if (plain && library_coefficients(data, size, theirs) && ours != theirs) differ("a coefficient");

    JpegSize image{};
    try {
        image = reader.scaled(eighths);
    } catch (const JpegError&) {
        return;
    }
    const Region whole{0, 0, image.width, image.height};
    const Decoded all = decode(true, data, size, eighths, whole);
    const Decoded expected = decode(false, data, size, eighths, whole);
    if (all.failure.empty() != expected.failure.empty())
        differ("whether the file is whole: '" + all.failure + "' and '" + expected.failure + "'");
    if (plain && eighths == 8 && !all.ours) differ("who decodes");

    // What is broken may lie below a region; and of a broken file the library's pixels need not be the same
    // twice.
    for (; regions && expected.failure.empty(); --regions) {
        Region region{below(image.width), below(image.height), 0, 0};
        region.right = region.left + 1 + below(image.width - region.left);
        region.bottom = region.top + 1 + below(image.height - region.top);
        for (const bool by_us : {true, false}) {
            const Decoded part = decode(by_us, data, size, eighths, region);
            if (!part.failure.empty()) differ("whether a region is whole: " + part.failure);
            if (part.pixels != part_of(expected.pixels, image.width, region)) differ("a pixel of a region");
        }
    }
    if (expected.failure.empty() && all.pixels != expected.pixels) differ("a pixel");
}

}  // namespace imagen_fast
