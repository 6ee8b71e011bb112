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
        if (turn == 1) return from_rows(stored, view, resampling, output);

        // Upright first, and then as any pixels: few photographs come here.
        const Place a = stored_place(turn, stored, view.box.left, view.box.top);
        const Place b = stored_place(turn, stored, view.box.right - 1, view.box.bottom - 1);
        const Region region{std::min(a.x, b.x), std::min(a.y, b.y), std::max(a.x, b.x) + 1,
                            std::max(a.y, b.y) + 1};
        reader_.start(region);
        const std::int64_t width = view.box.width(), height = view.box.height();
        upright_.resize(static_cast<std::size_t>(3 * width * height + ROW_SLACK));
        const JpegSize part{region.width(), region.height()};
        // Turning is its own opposite, but for the two quarter turns, which are each other's.
        const int back = turn == 6 ? 8 : turn == 8 ? 6 : turn;
        const JpegSize whole{width, height};
        for (std::int64_t y = 0; y < part.height; ++y) {
            const std::uint8_t* row = reader_.rows(1).pixels;
            for (std::int64_t x = 0; x < part.width; ++x) {
                const Place to = stored_place(back, whole, x, y);
                std::memcpy(upright_.data() + 3 * (to.y * width + to.x), row + 3 * x, 3);
            }
        }
        reader_.finish();
        View moved = view;
        moved.box = {0, 0, width, height};
        from_pixels({upright_.data(), 0, width, height}, moved, resampling.filter, output);
    }

private:
    int orientation() const {
        const int found = reader_.orientation();
        if (!found) throw JpegError("the orientation is not plain");
        return found;
    }

    void set_taps(const View& view, const Axis& across, const Axis& down, const ImageOutput& output) {
        across_.set(across, view.left, output.width, view.mirrored);
        down_.set(down, view.top, output.height, false);
        pitch_ = whole_lines(3 * output.width + ROW_SLACK);
        rows_.resize(static_cast<std::size_t>(down_.all().count * pitch_ + ROW_SLACK));
        line_.resize(static_cast<std::size_t>(whole_lines(3 * output.width + ROW_SLACK)));
        planes_.resize(static_cast<std::size_t>(3 * whole_lines(output.width)));
    }

    // The rows from this number on of those that the view is made of.
    void take_rows(std::int64_t number, std::uint8_t* pixels, std::int64_t pitch, std::int64_t count,
                   const ImageOutput& output) {
        if (output.channels == 1)
            for (std::int64_t y = 0; y < count; ++y) make_gray(pixels + y * pitch);
        IMAGEN_FAST_BEST(resample_rows)
        (across_, pixels, pitch, count, rows_.data() + number * pitch_, pitch_);
    }

    // All three channels have it.
    void make_gray(std::uint8_t* pixels) {
        for (std::uint8_t* p = pixels; p != pixels + 3 * across_.all().count; p += 3)
            p[0] = p[1] = p[2] = luminance(p);
    }

    void put(const ImageOutput& output) {
        const RepeatedChannels repeated(output);
        for (std::int64_t y = 0; y < output.height; ++y) {
            IMAGEN_FAST_BEST(resample_column)(down_, y, rows_.data(), pitch_, 3 * output.width, line_.data());
            IMAGEN_FAST_BEST(put_row)(output, repeated, y, line_.data(), planes_.data());
        }
    }

    void from_pixels(const Picture& picture, const View& view, Filter filter, const ImageOutput& output) {
        check_view(view, {picture.width, picture.height}, output.width, output.height);
        const Region& box = view.box;
        set_taps(view, {filter, 0, static_cast<double>(box.width()), box.width(), view.wide},
                 {filter, 0, static_cast<double>(box.height()), box.height(), view.high}, output);
        const std::int64_t left = box.left + across_.all().first, count = across_.all().count;
        line_of_pixels_.resize(static_cast<std::size_t>(3 * count + ROW_SLACK));
        for (std::int64_t y = 0; y < down_.all().count; ++y) {
            const std::int64_t row = box.top + down_.all().first + y;
            // Copied, since what lies beyond the last row is not ours to read.
            std::memcpy(line_of_pixels_.data(), picture.data + 3 * (row * picture.width + left),
                        static_cast<std::size_t>(3 * count));
            take_rows(y, line_of_pixels_.data(), 0, 1, output);
        }
        put(output);
    }

    // Each row is resampled while it is in the cache.
    void from_rows(JpegSize stored, const View& view, const Resampling& resampling,
                   const ImageOutput& output) {
        int eighths = scale(view, resampling);
        JpegSize scaled = reader_.scaled(eighths);
        // Files without a cosine transform have but one scale.
        if (scaled.width != (stored.width * eighths + 7) / 8) {
            eighths = 8;
            scaled = stored;
        }
        const double ratio = eighths / 8.0;
        const Region box{
            static_cast<std::int64_t>(std::floor(view.box.left * ratio)),
            static_cast<std::int64_t>(std::floor(view.box.top * ratio)),
            std::min(static_cast<std::int64_t>(std::ceil(view.box.right * ratio)), scaled.width),
            std::min(static_cast<std::int64_t>(std::ceil(view.box.bottom * ratio)), scaled.height)};
        set_taps(view,
                 {resampling.filter, view.box.left * ratio - box.left, view.box.right * ratio - box.left,
                  box.width(), view.wide},
                 {resampling.filter, view.box.top * ratio - box.top, view.box.bottom * ratio - box.top,
                  box.height(), view.high},
                 output);
        const std::int64_t left = box.left + across_.all().first, top = box.top + down_.all().first;
        reader_.start({left, top, left + across_.all().count, top + down_.all().count}, eighths);
        for (std::int64_t row = 0; row < down_.all().count;) {
            const JpegReader::Rows rows = reader_.rows(down_.all().count - row);
            take_rows(row, rows.pixels, rows.pitch, rows.count, output);
            row += rows.count;
        }
        reader_.finish();
        put(output);
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
    std::vector<std::uint8_t> rows_, line_, planes_, line_of_pixels_, upright_;
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
