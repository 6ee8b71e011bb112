// One row of a causal softmax. Compiled once per instruction set; see instruction_set.h.
#include <algorithm>
#include <type_traits>

#include "cpu/causal_softmax.h"
#include "cpu/lanes.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

namespace {

constexpr float LOG2_E = 1.44269504f;

template <class T>
constexpr int EXP2_DEGREE = std::is_same_v<T, BFloat16> ? 4 : 7;

// The first n lanes of x, the others instead.
Floats first_of(Floats x, std::int64_t n, float instead) {
    if (n >= LANES) return x;
    Ints lane;
    for (int i = 0; i < LANES; ++i) lane[i] = i;
    return lane < static_cast<std::int32_t>(n) ? x : all(instead);
}

// Calls work(first key, how many of a register's lanes) through all spans.
template <class Work>
void each(const KeySpan* spans, std::int64_t many, Work work) {
    for (const KeySpan* span = spans; span != spans + many; ++span)
        for (std::int64_t n = span->first; n < span->end; n += LANES) work(n, span->end - n);
}

// Calls zero(first, count) for what lies between the spans.
template <class T>
void clear_others(const KeySpan* spans, std::int64_t many, std::int64_t pixels, T* row) {
    std::int64_t from = 0;
    for (std::int64_t i = 0; i <= many; ++i) {
        const std::int64_t to = i < many ? spans[i].first : pixels;
        std::memset(row + from, 0, static_cast<std::size_t>(to - from) * sizeof(T));
        if (i < many) from = spans[i].end;
    }
}

float sum_of(Floats x) {
    float sum = 0;
    for (int i = 0; i < LANES; ++i) sum += x[i];
    return sum;
}

template <class T>
void forward(const KeySpan* spans, std::int64_t many, std::int64_t pixels, const T* scores, T* p) {
    constexpr float lowest = -__builtin_inff();
    // What is no number stays in the maximum, and so reaches every probability.
    Floats most = all(lowest), sum{};
    each(spans, many, [&](std::int64_t n, std::int64_t count) {
        const Floats x = first_of(load(scores + n, count), count, lowest);
        most = most > x || most != most ? most : x;
    });
    float highest = most[0];
    for (int i = 1; i < LANES; ++i) highest = highest > most[i] || highest != highest ? highest : most[i];
    const auto power = [&](std::int64_t n, std::int64_t count) {
        const Floats x = (load(scores + n, count) - highest) * LOG2_E;
        const Floats least = all(-125.0f);
        const Floats y = exp2<EXP2_DEGREE<T>>(x < least ? least : x);
        return x < least ? Floats{} : y;
    };
    each(spans, many,
         [&](std::int64_t n, std::int64_t count) { sum += first_of(power(n, count), count, 0); });
    const float inverse = 1.0f / sum_of(sum);
    each(spans, many,
         [&](std::int64_t n, std::int64_t count) { store(p + n, power(n, count) * inverse, count); });
    clear_others(spans, many, pixels, p);
}

template <class T>
void backward(const KeySpan* spans, std::int64_t many, std::int64_t pixels, const T* p, const T* d_p,
              T* d_scores) {
    Floats sum{};
    each(spans, many,
         [&](std::int64_t n, std::int64_t count) { sum += load(p + n, count) * load(d_p + n, count); });
    const float delta = sum_of(sum);
    each(spans, many, [&](std::int64_t n, std::int64_t count) {
        store(d_scores + n, load(p + n, count) * (load(d_p + n, count) - delta), count);
    });
    clear_others(spans, many, pixels, d_scores);
}

}  // namespace

void causal_softmax_row(const KeySpan* spans, std::int64_t many, std::int64_t pixels, DType dtype,
                        const void* scores, void* p) {
    if (dtype == DType::float32)
        return forward(spans, many, pixels, static_cast<const float*>(scores), static_cast<float*>(p));
    forward(spans, many, pixels, static_cast<const BFloat16*>(scores), static_cast<BFloat16*>(p));
}

void causal_softmax_backward_row(const KeySpan* spans, std::int64_t many, std::int64_t pixels, DType dtype,
                                 const void* p, const void* d_p, void* d_scores) {
    if (dtype == DType::float32)
        return backward(spans, many, pixels, static_cast<const float*>(p), static_cast<const float*>(d_p),
                        static_cast<float*>(d_scores));
    backward(spans, many, pixels, static_cast<const BFloat16*>(p), static_cast<const BFloat16*>(d_p),
             static_cast<BFloat16*>(d_scores));
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
