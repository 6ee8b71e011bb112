#include "cpu/decode_batch.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>

#include "cpu/resample.h"
#include "cpu/workers.h"

namespace imagen_fast {

namespace {

static_assert(JPEG_ROW_SLACK >= ROW_SLACK, "the reader's rows are resampled where they lie");

constexpr std::int64_t whole_lines(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Of the outputs of one direction those that are wanted, in the order in which they are.
struct Window {
    std::int64_t all, begin, count;
    bool mirrored;

    // The same where the inputs come last first.
    Window from_the_end() const { return {all, all - begin - count, count, !mirrored}; }
};

// A thread's own decoder and memory.
class Decoder {
public:
    JpegSize size(const Picture& picture, std::int64_t most_pixels) {
        if (picture.width) return {picture.width, picture.height};
        const JpegSize stored = reader_.open(picture.data, picture.size, most_pixels);
        return upright(stored, orientation());
    }

    void decode(const Picture& picture, const View& view, const Resampling& resampling,
                const ImageOutput& output) {
        if (picture.width) return from_pixels(picture, view, resampling.filter, output);
        const JpegSize stored = reader_.open(picture.data, picture.size);
        const int turn = orientation();
        check_view(view, upright(stored, turn), output.width, output.height);
        from_file(stored, turn, view, resampling, output);
    }

private:
    int orientation() const {
        const int found = reader_.orientation();
        if (!found) throw JpegError("the orientation is not plain");
        return found;
    }

    // `across` and `down` are as the pixels come.
    void set_taps(Filter filter, const Region& box, double scale, const Region& scaled, const Window& across,
                  const Window& down) {
        across_.set({filter, box.left * scale - scaled.left, box.right * scale - scaled.left, scaled.width(),
                     across.all},
                    across.begin, across.count, across.mirrored);
        down_.set({filter, box.top * scale - scaled.top, box.bottom * scale - scaled.top, scaled.height(),
                   down.all},
                  down.begin, down.count, down.mirrored);
        pitch_ = whole_lines(3 * across.count + ROW_SLACK);
    }

    static Window across(const View& view, const ImageOutput& output) {
        return {view.wide, view.left, output.width, view.mirrored};
    }
    static Window down(const View& view, const ImageOutput& output) {
        return {view.high, view.top, output.height, false};
    }

    // Calls make_row(y) for each row of the view, which leaves its pixels in `line_`.
    template <class MakeRow>
    void put(const ImageOutput& output, MakeRow make_row) {
        line_.resize(static_cast<std::size_t>(whole_lines(3 * output.width + ROW_SLACK)));
        planes_.resize(static_cast<std::size_t>(3 * whole_lines(output.width)));
        const RepeatedChannels repeated(output);
        for (std::int64_t y = 0; y < output.height; ++y) {
            make_row(y);
            IMAGEN_FAST_BEST(put_row)(output, repeated, y, line_.data(), planes_.data());
        }
    }

    // Pixels that come as the view has them: `each_rows(take)` calls take(number, pixels, pitch, count) for
    // rows, each of which is resampled while it is in the cache.
    template <class EachRows>
    void lying(const ImageOutput& output, EachRows each_rows) {
        rows_.resize(static_cast<std::size_t>(down_.all().count * pitch_ + ROW_SLACK));
        each_rows(
            [&](std::int64_t number, const std::uint8_t* pixels, std::int64_t pitch, std::int64_t count) {
                IMAGEN_FAST_BEST(resample_rows)
                (across_, pixels, pitch, count, rows_.data() + number * pitch_, pitch_);
            });
        put(output, [&](std::int64_t y) {
            IMAGEN_FAST_BEST(resample_column)(down_, y, rows_.data(), pitch_, 3 * output.width, line_.data());
        });
    }

    // Pixels whose columns are rows of the view. The view's rows are resampled first, as always, and so the
    // columns of what comes: all of it has to be there.
    template <class EachRows>
    void standing(const ImageOutput& output, EachRows each_rows) {
        const std::int64_t bytes = 3 * across_.all().count, pitch = whole_lines(bytes + ROW_SLACK);
        whole_.resize(static_cast<std::size_t>(down_.all().count * pitch));
        each_rows(
            [&](std::int64_t number, const std::uint8_t* pixels, std::int64_t from, std::int64_t count) {
                for (std::int64_t y = 0; y < count; ++y)
                    std::memcpy(whole_.data() + (number + y) * pitch, pixels + y * from,
                                static_cast<std::size_t>(bytes));
            });
        constexpr std::int64_t together = 4;
        few_.resize(static_cast<std::size_t>(together * pitch));
        rows_.resize(static_cast<std::size_t>(output.width * pitch_ + ROW_SLACK));
        for (std::int64_t x = 0; x < output.width; x += together) {
            const std::int64_t count = std::min(together, output.width - x);
            for (std::int64_t i = 0; i < count; ++i) IMAGEN_FAST_BEST(resample_column)
            (down_, x + i, whole_.data(), pitch, bytes, few_.data() + i * pitch);
            IMAGEN_FAST_BEST(resample_rows)
            (across_, few_.data(), pitch, count, rows_.data() + x * pitch_, pitch_);
        }
        put(output, [&](std::int64_t y) {
            for (std::int64_t x = 0; x < output.width; ++x)
                std::memcpy(line_.data() + 3 * x, rows_.data() + x * pitch_ + 3 * y, 3);
        });
    }

    // All three channels have it.
    static void make_gray(std::uint8_t* pixels, std::int64_t count) {
        for (std::uint8_t* p = pixels; p != pixels + 3 * count; p += 3) p[0] = p[1] = p[2] = luminance(p);
    }

    void from_pixels(const Picture& picture, const View& view, Filter filter, const ImageOutput& output) {
        check_view(view, {picture.width, picture.height}, output.width, output.height);
        set_taps(filter, view.box, 1, view.box, across(view, output), down(view, output));
        const std::int64_t left = view.box.left + across_.all().first, top = view.box.top + down_.all().first;
        const std::int64_t count = across_.all().count;
        line_of_pixels_.resize(static_cast<std::size_t>(3 * count + ROW_SLACK));
        lying(output, [&](auto take) {
            for (std::int64_t y = 0; y < down_.all().count; ++y) {
                // Copied, since what lies beyond the last row is not ours to read.
                std::memcpy(line_of_pixels_.data(), picture.data + 3 * ((top + y) * picture.width + left),
                            static_cast<std::size_t>(3 * count));
                if (output.channels == 1) make_gray(line_of_pixels_.data(), count);
                take(y, line_of_pixels_.data(), 0, 1);
            }
        });
    }

    // Nothing is turned before it is small.
    void from_file(JpegSize stored, int turn, const View& view, const Resampling& resampling,
                   const ImageOutput& output) {
        int eighths = scale(view, resampling);
        JpegSize scaled = reader_.scaled(eighths);
        // Files without a cosine transform have but one scale.
        if (scaled.width != (stored.width * eighths + 7) / 8) {
            eighths = 8;
            scaled = stored;
        }
        const double ratio = eighths / 8.0;
        const Region part = stored_region(turn, stored, view.box);
        const Region box{static_cast<std::int64_t>(std::floor(part.left * ratio)),
                         static_cast<std::int64_t>(std::floor(part.top * ratio)),
                         std::min(static_cast<std::int64_t>(std::ceil(part.right * ratio)), scaled.width),
                         std::min(static_cast<std::int64_t>(std::ceil(part.bottom * ratio)), scaled.height)};
        Window x = across(view, output), y = down(view, output);
        if (turned(turn)) std::swap(x, y);
        set_taps(resampling.filter, part, ratio, box, from_right(turn) ? x.from_the_end() : x,
                 from_below(turn) ? y.from_the_end() : y);

        const std::int64_t left = box.left + across_.all().first, top = box.top + down_.all().first;
        reader_.start({left, top, left + across_.all().count, top + down_.all().count}, eighths);
        const auto each_rows = [&](auto take) {
            for (std::int64_t row = 0; row < down_.all().count;) {
                const JpegReader::Rows rows = reader_.rows(down_.all().count - row);
                if (output.channels == 1)
                    for (std::int64_t i = 0; i < rows.count; ++i)
                        make_gray(rows.pixels + i * rows.pitch, across_.all().count);
                take(row, rows.pixels, rows.pitch, rows.count);
                row += rows.count;
            }
            reader_.finish();
        };
        if (turned(turn))
            standing(output, each_rows);
        else
            lying(output, each_rows);
    }

    static int scale(const View& view, const Resampling& resampling) {
        if (resampling.least_pixels <= 0) return 8;
        const double left = std::min(static_cast<double>(view.box.width()) / view.wide,
                                     static_cast<double>(view.box.height()) / view.high) /
                            resampling.least_pixels;
        return left >= 8 ? 1 : left >= 4 ? 2 : left >= 2 ? 4 : 8;
    }

    JpegReader reader_;
    Taps across_, down_;
    std::int64_t pitch_ = 0;
    std::vector<std::uint8_t> rows_, line_, planes_, line_of_pixels_, whole_, few_;
};

// Calls work(decoder, i) for each picture, and notes what it throws.
template <class Work>
Failures for_each_picture(const std::vector<Picture>& pictures, int threads, Work work) {
    // Taken here, since a thread that has no memory left cannot say so.
    Failures failures(pictures.size(), "there was no memory for it");
    share_out<Decoder>(static_cast<std::int64_t>(pictures.size()), threads,
                       [&](std::unique_ptr<Decoder>& decoder, std::int64_t i) {
                           std::string& failure = failures[static_cast<std::size_t>(i)];
                           try {
                               if (!decoder) decoder = std::make_unique<Decoder>();
                               work(*decoder, static_cast<std::size_t>(i));
                               failure.clear();
                           } catch (const std::bad_alloc&) {
                           } catch (const std::exception& error) {
                               try {
                                   failure = error.what();
                               } catch (const std::bad_alloc&) {
                               }
                           }
                       });
    return failures;
}

}  // namespace

Failures picture_sizes(const std::vector<Picture>& pictures, std::vector<JpegSize>& sizes,
                       std::int64_t most_pixels, int threads) {
    sizes.assign(pictures.size(), {0, 0});
    return for_each_picture(pictures, threads, [&](Decoder& decoder, std::size_t i) {
        sizes[i] = decoder.size(pictures[i], most_pixels);
    });
}

Failures decode_batch(const std::vector<Picture>& pictures, const std::vector<View>& views,
                      const Resampling& resampling, const ImageOutput& first, std::int64_t bytes,
                      const std::int64_t* places, int threads) {
    return for_each_picture(pictures, threads, [&](Decoder& decoder, std::size_t i) {
        ImageOutput output = first;
        output.data = static_cast<char*>(first.data) + places[i] * bytes;
        decoder.decode(pictures[i], views[i], resampling, output);
    });
}

}  // namespace imagen_fast
