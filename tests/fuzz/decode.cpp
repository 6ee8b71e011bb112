// Decodes files, and mutations of them, into views drawn at random: fuzz_decode MUTATIONS SEED FILE...
//
// The sanitizers end the process at the first fault; a decode that takes longer than all could is one too.
// Pixels are not looked at here: the tests in Python do that.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "against_library.h"
#include "cpu/decode_batch.h"
#include "cuda/jpeg_header.h"

namespace {

using imagen_fast::Filter;
using Bytes = std::vector<std::uint8_t>;

constexpr double LONGEST_SECONDS = 10;

std::mt19937_64 draws;

std::int64_t below(std::int64_t limit) {
    return static_cast<std::int64_t>(draws() % static_cast<std::uint64_t>(limit));
}

// A few of: a bit, a byte, a piece that is cut out, doubled or overwritten, an end that is lost.
void mutate(Bytes& bytes) {
    static const std::uint8_t telling[] = {0x00, 0x01, 0x7f, 0x80, 0xc0, 0xc2, 0xc4,
                                           0xd8, 0xd9, 0xda, 0xdb, 0xe1, 0xfe, 0xff};
    for (std::int64_t i = below(6); i >= 0 && !bytes.empty(); --i) {
        const auto size = static_cast<std::int64_t>(bytes.size());
        // Headers are short, and most of what can go wrong is in them.
        const std::int64_t at = below(below(2) ? size : std::min<std::int64_t>(size, 700));
        const auto place = bytes.begin() + at;
        const std::int64_t piece = 1 + below(std::min<std::int64_t>(size - at, 40));
        switch (below(7)) {
            case 0:
                *place ^= static_cast<std::uint8_t>(1 << below(8));
                break;
            case 1:
                *place = static_cast<std::uint8_t>(below(256));
                break;
            case 2:
                *place = telling[below(static_cast<std::int64_t>(std::size(telling)))];
                break;
            case 3:
                bytes.erase(place, place + piece);
                break;
            case 4: {
                const Bytes copy(place, place + piece);
                bytes.insert(bytes.begin() + below(size), copy.begin(), copy.end());
                break;
            }
            case 5:
                std::fill_n(place, piece, telling[below(static_cast<std::int64_t>(std::size(telling)))]);
                break;
            default:
                if (below(8) == 0) bytes.resize(static_cast<std::size_t>(at));
        }
    }
}

// Memory of exactly the size, so that the sanitizer sees what lies beyond it.
struct Exact {
    explicit Exact(const Bytes& bytes) : size(bytes.size()), data(new std::uint8_t[size + (size == 0)]) {
        std::copy(bytes.begin(), bytes.end(), data.get());
    }
    std::size_t size;
    std::unique_ptr<std::uint8_t[]> data;
};

// The header as the GPU's decoder reads it: where it is taken, it must say what libjpeg says.
void compare_headers(const imagen_fast::Picture& picture, imagen_fast::JpegSize size) {
    imagen_fast::JpegHeader header;
    try {
        header = imagen_fast::read_jpeg_header(picture.data, picture.size);
    } catch (const std::invalid_argument&) {
        return;
    }
    const imagen_fast::JpegSize found = imagen_fast::upright(header.stored, header.orientation);
    if (size.width && (found.width != size.width || found.height != size.height)) {
        std::fprintf(stderr, "two readers of headers disagree\n");
        std::abort();
    }
}

// Alone, and after a neighbour: that must change nothing, neither whether it is accepted nor a byte of what
// comes out. Of a part of the image, or of all of it.
bool decode(const Bytes& bytes, const Bytes& neighbour, bool all) {
    const Exact exact(bytes), other(neighbour);
    const imagen_fast::Picture picture{exact.data.get(), exact.size};
    std::vector<imagen_fast::JpegSize> sizes;
    const auto why = imagen_fast::picture_sizes({picture}, sizes, imagen_fast::MOST_PIXELS, 1);
    compare_headers(picture, sizes[0]);
    if (!why[0].empty()) return false;

    const std::int64_t width = sizes[0].width, height = sizes[0].height;
    imagen_fast::View view{};
    view.box = {below(width), below(height), 0, 0};
    view.box.right = view.box.left + 1 + below(width - view.box.left);
    view.box.bottom = view.box.top + 1 + below(height - view.box.top);
    imagen_fast::ImageOutput output{};
    output.type = static_cast<imagen_fast::PixelType>(below(4));
    output.channels = below(4) ? 3 : 1;
    output.patch = below(2) ? 0 : 1 + below(5);
    const std::int64_t unit = output.patch ? output.patch : 1;
    output.height = unit * (1 + below(40 / unit));
    output.width = unit * (1 + below(90 / unit));
    view.wide = output.width + below(3) * below(30);
    view.high = output.height + below(3) * below(30);
    view.left = below(view.wide - output.width + 1);
    view.top = below(view.high - output.height + 1);
    view.mirrored = below(2);
    for (int eighths = 1; eighths <= 8; eighths *= 2)
        if (all || below(4) == 0)
            imagen_fast::compare_with_library(picture.data, picture.size, eighths, all ? 10 : 1, draws());
    if (all) {
        output.width = output.height = view.wide = view.high = 60;  // any patch divides it
        view.left = view.top = 0;
        view.box = {0, 0, width, height};
    }
    std::fill_n(output.scale, 3, 1.0f);
    const std::int64_t count =
        output.channels * output.height * output.width * imagen_fast::size_of(output.type);
    const imagen_fast::Resampling resampling{static_cast<Filter>(below(2)), below(3) ? 0.0 : 1.0};
    const auto run = [&](const std::vector<imagen_fast::Picture>& pictures) {
        std::vector<std::int64_t> places;
        for (std::size_t i = 0; i < pictures.size(); ++i) places.push_back(static_cast<std::int64_t>(i));
        Bytes out(static_cast<std::size_t>(count) * pictures.size());
        output.data = out.data();
        const std::vector<imagen_fast::View> views(pictures.size(), view);
        const auto failures =
            imagen_fast::decode_batch(pictures, views, resampling, output, count, places.data(), 1);
        return std::pair(failures.back(), Bytes(out.end() - count, out.end()));
    };
    const auto alone = run({picture});
    const imagen_fast::Picture before{other.data.get(), other.size};
    // Twice, since what is the same as before may be taken from there.
    if (run({before, picture}) != alone || run({before, picture, picture}) != alone) {
        std::fprintf(stderr, "a neighbour changes what becomes of a file\n");
        std::abort();
    }
    return alone.first.empty();
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 4) {
        std::fprintf(stderr, "usage: %s MUTATIONS SEED FILE...\n", arguments[0]);
        return 2;
    }
    const long mutations = std::atol(arguments[1]);
    draws.seed(std::strtoull(arguments[2], nullptr, 10));
    std::vector<Bytes> files;
    for (int i = 3; i < count; ++i) {
        std::ifstream file(arguments[i], std::ios::binary);
        files.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    long whole = 0, accepted = 0;
    for (const Bytes& file : files) whole += decode(file, files[0], true);
    for (long i = 0; i < mutations; ++i) {
        const auto any = [&]() -> const Bytes& {
            return files[static_cast<std::size_t>(below(static_cast<std::int64_t>(files.size())))];
        };
        Bytes bytes = any();
        mutate(bytes);
        const auto start = std::chrono::steady_clock::now();
        accepted += decode(bytes, any(), false);
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        if (seconds.count() > LONGEST_SECONDS) {
            std::fprintf(stderr, "mutation %ld of seed %s took %.1f s\n", i, arguments[2], seconds.count());
            return 1;
        }
    }
    std::printf("%zu files, %ld accepted; %ld mutations, %ld accepted, %ld compared; no fault\n",
                files.size(), whole, mutations, accepted, imagen_fast::files_compared());
    return 0;
}
