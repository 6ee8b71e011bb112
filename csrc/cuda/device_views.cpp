#include "cuda/device_views.h"

namespace imagen_fast {

namespace {

constexpr std::int64_t ALIGNED = 16;

constexpr std::int64_t aligned(std::int64_t bytes) { return (bytes + ALIGNED - 1) / ALIGNED * ALIGNED; }

// Weights, spans and the number of places, one after another.
std::int64_t weight_bytes(const DeviceTaps& taps) {
    return aligned(kept_weights(taps.axis) * taps.outputs * std::int64_t{sizeof(std::int16_t)});
}
std::int64_t span_bytes(const DeviceTaps& taps) { return aligned(taps.outputs * std::int64_t{sizeof(Span)}); }

void place_at(DeviceTaps& taps, std::uint8_t* memory) {
    taps.weights = reinterpret_cast<std::int16_t*>(memory);
    taps.spans = reinterpret_cast<Span*>(memory + weight_bytes(taps));
    taps.bits = reinterpret_cast<std::int32_t*>(memory + weight_bytes(taps) + span_bytes(taps));
}

}  // namespace

void DeviceViews::add(const DeviceImage& image, const View& view, std::int64_t place) {
    check_view(view, upright(image.stored, image.orientation), output_.width, output_.height);
    const Region& box = view.box;
    const auto byte = [&image](std::int64_t x, std::int64_t y) {
        const Place stored = stored_place(image.orientation, image.stored, x, y);
        return stored.y * image.pitch + stored.x * 3;
    };
    DeviceView made{};
    const std::int64_t origin = byte(box.left, box.top);
    made.origin = image.pixels + origin;
    // Along either axis the bytes grow evenly; a neighbour outside of the image is computed, never read.
    made.right = byte(box.left + 1, box.top) - origin;
    made.down = byte(box.left, box.top + 1) - origin;
    made.place = place;
    add_axis(made.across, box.width(), view.wide, view.left, output_.width, view.mirrored);
    add_axis(made.downwards, box.height(), view.high, view.top, output_.height, false);
    views_.push_back(made);
}

void DeviceViews::add_axis(DeviceTaps& taps, std::int64_t inputs, std::int64_t resized, std::int64_t begin,
                           std::int64_t outputs, bool mirrored) {
    taps.axis = {filter_, 0, static_cast<double>(inputs), inputs, resized};
    taps.begin = begin;
    taps.outputs = outputs;
    taps.mirrored = mirrored;
    offsets_.push_back(bytes_);
    bytes_ += weight_bytes(taps) + span_bytes(taps) + ALIGNED;
}

const std::vector<DeviceView>& DeviceViews::with_weights_at(std::uint8_t* memory) {
    for (std::size_t i = 0; i < views_.size(); ++i) {
        place_at(views_[i].across, memory + offsets_[2 * i]);
        place_at(views_[i].downwards, memory + offsets_[2 * i + 1]);
    }
    return views_;
}

}  // namespace imagen_fast
