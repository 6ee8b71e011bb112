#include "cpu/resample.h"

#include <algorithm>
#include <cmath>

namespace imagen_fast {

void Taps::set(const Axis& axis, std::int64_t begin, std::int64_t outputs, bool mirrored) {
    const std::int64_t most = std::min(most_inputs(axis), axis.inputs);
    pitch_ = (most + GROUP - 1) / GROUP * GROUP;
    reach_.resize(static_cast<std::size_t>(outputs));
    exact_.assign(static_cast<std::size_t>(outputs * pitch_), 0.0);
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

    // No more than 22 places, so that a sum of products stays below 2^31; and room for what is added to the
    // greatest weight.
    const double most_weight = 32767.0 - static_cast<double>(pitch_);
    for (bits_ = 14; bits_ < 22 && std::ldexp(largest, bits_ + 1) < most_weight;) ++bits_;
    const int one = 1 << bits_;
    for (std::int64_t i = 0; i < outputs; ++i) {
        Reach& reach = reach_[static_cast<std::size_t>(i)];
        reach.first -= first;
        const double* exact = exact_.data() + i * pitch_;
        std::int16_t* weights = weights_.data() + i * pitch_;
        std::int64_t sum = 0, greatest = 0;
        for (std::int64_t k = 0; k < pitch_; ++k) {
            weights[k] = static_cast<std::int16_t>(std::lrint(std::ldexp(exact[k], bits_)));
            sum += weights[k];
            if (weights[k] > weights[greatest]) greatest = k;
        }
        // What is of one colour stays so.
        weights[greatest] = static_cast<std::int16_t>(weights[greatest] + one - sum);
    }
}

}  // namespace imagen_fast
