// AdamW over a whole list of parameters in one pass through memory, and the norm of their gradients.
#pragma once

#include <cstdint>
#include <vector>

#include "common/number_types.h"
#include "cpu/instruction_set.h"

namespace imagen_fast {

// A dense run of values and how they are stored.
struct Gradient {
    const void* data;
    DType dtype;
    std::int64_t size;
};

struct Parameter {
    Gradient gradient;
    float* master;
    float* exp_avg;
    float* exp_avg_sq;
    BFloat16* weight;  // the rounded copy that the model computes with; null where that is the master
    double lr, weight_decay;
};

struct AdamwStep {
    double beta1, beta2, eps;
    double bias_correction1, bias_correction2_sqrt;
    double gradient_scale;  // every gradient is multiplied by it first: clipping costs no pass of its own
};

// The formula and its order are those of torch.optim.AdamW(fused=True).
void adamw_step(const std::vector<Parameter>& parameters, const AdamwStep& step, int threads);

// The Euclidean norm of all gradients together; the same bits at any number of threads.
double gradient_norm(const std::vector<Gradient>& gradients, int threads);

#define IMAGEN_FAST_DECLARE(set)                                                                    \
    namespace set {                                                                                 \
    void adamw_span(const Parameter& p, const AdamwStep& step, std::int64_t from, std::int64_t to); \
    double sum_of_squares(const Gradient& gradient, std::int64_t from, std::int64_t to);            \
    }
IMAGEN_FAST_FOR_EACH_INSTRUCTION_SET(IMAGEN_FAST_DECLARE)
#undef IMAGEN_FAST_DECLARE

}  // namespace imagen_fast
