// Compiled once per instruction set; see instruction_set.h.
#include "cpu/quick_gelu.h"

#include "cpu/activations.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

void quick_gelu(const BFloat16* x, std::int64_t count, BFloat16* y) {
    for_lanes(count, [=](std::int64_t i, auto n) { store(y + i, quick_gelu<5>(load(x + i, n)), n); });
}

void quick_gelu_gradient(const BFloat16* d_y, const BFloat16* x, std::int64_t count, BFloat16* d_x) {
    for_lanes(count, [=](std::int64_t i, auto n) {
        const Floats value = held(load(x + i, n)), e = quick_gelu_decay<5>(value),
                     sigmoid = 1.0f / (1.0f + e);
        // The sigmoid's own slope is sigmoid * (1 - sigmoid), and e * sigmoid is that difference.
        const Floats slope = sigmoid * (1.0f + QUICK_GELU_SLOPE * value * (e * sigmoid));
        store(d_x + i, load(d_y + i, n) * slope, n);
    });
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
