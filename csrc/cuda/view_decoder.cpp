#include "cuda/view_decoder.h"

#include <cstring>
#include <stdexcept>

#include "cuda/jpeg_header.h"
#include "cuda/resample_images.h"

namespace imagen_fast {

namespace {

// Of decoded images at once; a single one may have more.
constexpr std::int64_t MOST_BYTES = std::int64_t{256} << 20;

constexpr std::int64_t aligned(std::int64_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

struct ViewDecoder::Image {
    std::size_t number;
    Picture picture;
    DeviceImage decoded;  // its pixels: once there is memory for them
    std::int64_t offset;  // of those
    std::string failure;

    bool is_jpeg() const { return picture.width == 0; }
    std::int64_t bytes() const { return decoded.pitch * decoded.stored.height; }
};

ViewDecoder::ViewDecoder(const std::string& nvjpeg) : jpegs_(NvjpegLibrary::at(nvjpeg)) {}

Failures ViewDecoder::decode(const std::vector<Picture>& pictures, const std::vector<View>& views,
                             Filter filter, const ImageOutput& output, const std::int64_t* places,
                             int threads, std::uintptr_t stream) {
    Failures failures(pictures.size());
    for (std::size_t next = 0; next < pictures.size();) {
        std::vector<Image> images;
        for (std::int64_t bytes = 0; next < pictures.size(); ++next) {
            const Picture& picture = pictures[next];
            JpegHeader header{{picture.width, picture.height}, 1};
            try {
                if (picture.width == 0) header = read_jpeg_header(picture.data, picture.size);
            } catch (const std::invalid_argument& error) {
                failures[next] = error.what();
                continue;
            }
            const JpegSize stored = header.stored;
            Image image{next, picture, {nullptr, 3 * stored.width, stored, header.orientation}, bytes, {}};
            if (!images.empty() && bytes + image.bytes() > MOST_BYTES) break;
            bytes += aligned(image.bytes());
            images.push_back(image);
        }
        if (images.empty()) break;
        Slot& slot = slots_[turn_++ % slots_.size()];
        slot.done.wait();
        bring(slot, images, threads);
        DeviceViews seen(output, filter);
        for (Image& image : images) {
            try {
                if (image.failure.empty()) seen.add(image.decoded, views[image.number], places[image.number]);
            } catch (const std::invalid_argument& error) {
                image.failure = error.what();
            }
            failures[image.number] = image.failure;
        }
        resample(slot, seen, output, stream);
    }
    return failures;
}

void ViewDecoder::bring(Slot& slot, std::vector<Image>& images, int threads) {
    std::uint8_t* memory = slot.pixels.reserve(images.back().offset + aligned(images.back().bytes()));
    std::vector<JpegTask> tasks;
    std::vector<Image*> of_tasks;
    for (Image& image : images) {
        std::uint8_t* pixels = memory + image.offset;
        image.decoded.pixels = pixels;
        if (image.is_jpeg()) {
            tasks.push_back({image.picture.data,
                             image.picture.size,
                             pixels,
                             image.decoded.stored.width,
                             image.decoded.stored.height,
                             {}});
            of_tasks.push_back(&image);
        } else {
            check_cuda(cudaMemcpyAsync(pixels, image.picture.data, static_cast<std::size_t>(image.bytes()),
                                       cudaMemcpyHostToDevice, uploads_.get()));
        }
    }
    jpegs_.decode(tasks, threads);
    for (std::size_t i = 0; i < tasks.size(); ++i) of_tasks[i]->failure = tasks[i].failure;
    uploads_.wait();
}

void ViewDecoder::resample(Slot& slot, DeviceViews& views, const ImageOutput& output, std::uintptr_t stream) {
    if (views.count() == 0) return;
    const std::vector<DeviceView>& made = views.with_weights_at(slot.weights.reserve(views.bytes()));
    const auto bytes = made.size() * sizeof(DeviceView);
    auto* table = slot.table.reserve_of<DeviceView>(views.count());
    auto* on_device = slot.views.reserve_of<DeviceView>(views.count());
    std::memcpy(table, made.data(), bytes);
    const auto queue = reinterpret_cast<cudaStream_t>(stream);
    check_cuda(cudaMemcpyAsync(on_device, table, bytes, cudaMemcpyHostToDevice, queue));
    resample_images(on_device, views.count(), output, stream);
    slot.done.record(queue);
}

}  // namespace imagen_fast
