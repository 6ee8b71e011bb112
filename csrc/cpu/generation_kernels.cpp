// Compiled once per instruction set; see instruction_set.h.
#include "cpu/generation.h"
#include "cpu/word_gemm.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

namespace {

constexpr std::int64_t STEP = 2 * LANES;  // columns of a tile
static_assert(PANEL % STEP == 0);
constexpr float LOG2_E = 1.44269504f;
constexpr float UNSEEN = -3.0e38f;

typedef std::uint8_t Bytes __attribute__((vector_size(LANES)));

const Word* words(const float* x) { return reinterpret_cast<const Word*>(x); }

// A tile of a product over any number of steps, in partial sums.
template <int ROWS>
void product(float* c, std::int64_t c_row, WordMatrix a, const Word* b, std::int64_t b_step,
             std::int64_t steps) {
    for (std::int64_t k = 0; k < steps; k += PARTIAL) {
        const auto part =
            multiply<FloatWords, ROWS, 2>(a.from(0, k), b + k * b_step, b_step, std::min(PARTIAL, steps - k));
        for (int i = 0; i < ROWS; ++i)
            for (int l = 0; l < 2; ++l) {
                float* to = c + i * c_row + l * LANES;
                store(to, k ? load(to) + part.sum[i][l] : part.sum[i][l]);
            }
    }
}

template <class Fold>
float across(Floats x, Fold fold) {
    float total = x[0];
    for (int i = 1; i < LANES; ++i) total = fold(total, x[i]);
    return total;
}

}  // namespace

void packed_linear_panel(const PackedLinear& linear, std::int64_t panel) {
    const Word* weight = words(linear.weight) + panel * linear.in * PANEL;
    in_tiles(linear.rows, [&](auto many, std::int64_t r) {
        const WordMatrix x{words(linear.x) + r * linear.in, linear.in, 1};
        for (std::int64_t at = 0; at < PANEL; at += STEP) {
            const std::int64_t column = panel * PANEL + at;
            if (column >= linear.out) return;
            float sums[TILE_ROWS * STEP];
            product<many>(sums, STEP, x, weight + at, PANEL, linear.in);
            for (int i = 0; i < many; ++i)
                for (int l = 0; l < STEP; l += LANES) {
                    const std::int64_t left = linear.out - column - l;
                    if (left <= 0) break;
                    Floats y = load(sums + i * STEP + l);
                    if (linear.bias) y += load(linear.bias + column + l, left);
                    store(linear.y + (r + i) * linear.out + column + l, y, left);
                }
        }
    });
}

std::int64_t attend_step_workspace(const StepCache& cache, const Step& step) {
    const std::int64_t keys = (step.last - step.low + STEP - 1) / STEP * STEP;
    return TILE_ROWS * (cache.width + keys + cache.padded_width());
}

void attend_step_one(const StepCache& cache, const Step& step, const StepTokens& q, const StepTokens& k,
                     const StepTokens& v, float* out, std::int64_t image, std::int64_t head,
                     float* workspace) {
    const std::int64_t width = cache.width, padded = cache.padded_width(), slots = cache.slots;
    const std::int64_t new_tokens = step.last - step.first, seen = step.last - step.low;
    const std::int64_t keys_row = (seen + STEP - 1) / STEP * STEP;
    float* keys = cache.keys + (image * cache.heads + head) * width * slots;
    float* values = cache.values + (image * cache.heads + head) * slots * padded;
    const auto row = [&](const StepTokens& x, std::int64_t i) {
        return x.data + image * x.batch_stride + i * x.row_stride + head * x.head_stride;
    };
    for (std::int64_t i = 0; i < new_tokens; ++i)
        for (std::int64_t d = 0; d < width; ++d) {
            keys[d * slots + step.first + i] = row(k, i)[d];
            values[(step.first + i) * padded + d] = row(v, i)[d];
        }
    float* queries = workspace;
    float* scores = queries + TILE_ROWS * width;
    float* result = scores + TILE_ROWS * keys_row;
    const Floats factor = all(step.scale * LOG2_E);
    std::uint8_t everyone[LANES];
    std::fill_n(everyone, LANES, 1);
    in_tiles(new_tokens, [&](auto many, std::int64_t first) {
        for (int i = 0; i < many; ++i) std::copy_n(row(q, first + i), width, queries + i * width);
        Floats most[many];
        for (int i = 0; i < many; ++i) most[i] = all(UNSEEN);
        for (std::int64_t at = 0; at < keys_row; at += STEP) {
            const auto tile = multiply<FloatWords, many, 2>({words(queries), width, 1},
                                                            words(keys) + step.low + at, slots, width);
            for (int i = 0; i < many; ++i)
                for (int l = 0; l < 2; ++l) {
                    const std::int64_t n = at + l * LANES;
                    Floats score = tile.sum[i][l] * factor;
                    if (step.mask || n + LANES > seen) {
                        const std::int64_t left = std::clamp<std::int64_t>(seen - n, 0, LANES);
                        const std::uint8_t* mask = step.mask ? step.mask + (first + i) * seen + n : everyone;
                        std::uint8_t some[LANES] = {};
                        if (left < LANES) mask = std::copy_n(mask, left, some) - left;
                        const Ints there = __builtin_convertvector(read<Bytes>(mask), Ints);
                        score = there != 0 ? score : all(UNSEEN);
                    }
                    most[i] = larger(most[i], score);
                    store(scores + i * keys_row + n, score);
                }
        }
        float inverse[many];
        for (int i = 0; i < many; ++i) {
            const Floats top = all(across(most[i], [](float a, float b) { return a > b ? a : b; }));
            Floats sum{};
            for (std::int64_t n = 0; n < keys_row; n += LANES) {
                const Floats score = load(scores + i * keys_row + n);
                const Floats power = score > UNSEEN ? exp2<7>(score - top) : Floats{};
                sum += power;
                store(scores + i * keys_row + n, power);
            }
            inverse[i] = 1.0f / across(sum, [](float a, float b) { return a + b; });
        }
        for (std::int64_t at = 0; at < padded; at += STEP)
            product<many>(result + at, padded, {words(scores), keys_row, 1},
                          words(values) + step.low * padded + at, padded, seen);
        for (int i = 0; i < many; ++i) {
            float* to = out + ((image * new_tokens + first + i) * cache.heads + head) * width;
            for (std::int64_t d = 0; d < width; d += LANES)
                store(to + d, load(result + i * padded + d) * inverse[i], width - d);
        }
    });
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
