#include "cpu/resample.h"

#include <algorithm>
#include <cmath>

namespace imagen_fast {

void Taps::set(const Axis& axis, std::int64_t begin, std::int64_t outputs, bool mirrored) {
    pitch_ = kept_weights(axis);
    reach_.resize(static_cast<std::size_t>(outputs));
    exact_.resize(static_cast<std::size_t>(outputs * pitch_));
    weights_.resize(exact_.size());

    double largest = 0;
    std::int64_t first = axis.inputs, last = 0;
    for (std::int64_t i = 0; i < outputs; ++i) {
        const std::int64_t output = begin + (mirrored ? outputs - 1 - i : i);
        const Reach reach = reach_of(axis, output);
        double* weights = exact_.data() + i * pitch_;
        double sum = 0;
        for (std::int64_t k = 0; k < reach.count; ++k)
            sum += weights[k] = weight_of(axis, output, reach.first + k);
        for (std::int64_t k = 0; k < reach.count; ++k) {
            weights[k] /= sum;
            largest = std::max(largest, std::fabs(weights[k]));
        }
        reach_[static_cast<std::size_t>(i)] = reach;
        first = std::min(first, reach.first);
        last = std::max(last, reach.first + reach.count);
    }
    all_ = {first, std::max(first, last) - first};

    bits_ = binary_places(largest, pitch_);
    std::fill(weights_.begin(), weights_.end(), std::int16_t{0});
    for (std::int64_t i = 0; i < outputs; ++i) {
        Reach& reach = reach_[static_cast<std::size_t>(i)];
        reach.first -= first;
        const double* exact = exact_.data() + i * pitch_;
        set_weights(
            reach.count, bits_, [exact](std::int64_t k) { return exact[k]; }, weights_.data() + i * pitch_,
            1);
    }
}

}  // namespace imagen_fast
