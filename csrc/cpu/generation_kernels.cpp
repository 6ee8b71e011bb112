// Compiled once per instruction set; see instruction_set.h.
#include "cpu/generation.h"

#include "cpu/activations.h"
#include "cpu/norm_row.h"
#include "cpu/word_gemm.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

namespace {

constexpr std::int64_t STEP = 2 * LANES;  // columns of a tile
static_assert(PANEL % STEP == 0);
constexpr float LOG2_E = 1.44269504f;
constexpr float UNSEEN = -3.0e38f;

const Word* words(const float* x) { return reinterpret_cast<const Word*>(x); }

template <class Fold>
float across(Floats x, Fold fold) {
    float total = x[0];
    for (int i = 1; i < LANES; ++i) total = fold(total, x[i]);
    return total;
}

// Tokens of a group side by side: [width, GROUP]; what they make of blocks likewise: [blocks, GROUP,
// BLOCK_KEYS]. A product finds its rows at distances that the compiler knows, and needs no registers for
// them.
constexpr std::int64_t GROUP_BLOCK = GROUP * BLOCK_KEYS;

// The keys of two blocks lie side by side.
constexpr std::int64_t KEYS_ROW = 2 * BLOCK_KEYS;
std::int64_t keys_at(std::int64_t block, std::int64_t width) {
    return block / 2 * width * KEYS_ROW + block % 2 * BLOCK_KEYS;
}

// Scores of some tokens of a group and all that it sees; the largest of each lane so far.
template <int ROWS>
void score(float* scores, Floats* most, const float* queries, const float* keys, std::int64_t width,
           Range<SeenBlock> seen, const std::uint32_t* masks, std::int64_t first, float scale) {
    constexpr int REGISTERS = BLOCK_KEYS / LANES;
    for (int i = 0; i < ROWS; ++i) most[i] = all(UNSEEN);
    const std::int64_t registers = (seen.last - seen.first) * REGISTERS;
    for (std::int64_t r = 0; r < registers; r += 2) {
        const Word* from[2];
        float* to[2];
        Bits see[2];
        for (int l = 0; l < 2; ++l) {
            const std::int64_t at = (r + l) % REGISTERS * LANES;
            const SeenBlock& block = seen.first[(r + l) / REGISTERS];
            from[l] = words(keys) + keys_at(block.number, width) + at;
            to[l] = scores + (r + l) / REGISTERS * GROUP_BLOCK + at;
            see[l] = block.masks < 0 ? ~Bits{} : read<Bits>(masks + block.masks + at) >> first;
        }
        const auto tile = multiply_add<FloatWords>(Tile<ROWS, 2>{}, {words(queries), 1, GROUP}, from[0],
                                                   KEYS_ROW, width, from[1] - from[0]);
        for (int i = 0; i < ROWS; ++i)
            for (int l = 0; l < 2; ++l) {
                const Floats x = (see[l] & (1u << i)) != 0 ? tile.sum[i][l] * scale : all(UNSEEN);
                most[i] = larger(most[i], x);
                store(to[l] + i * BLOCK_KEYS, x);
            }
    }
}

// A token's scores become exponentials of what they are below the largest; their sum.
float exponentials(float* scores, std::int64_t blocks, Floats most) {
    const Floats top = all(across(most, [](float a, float b) { return a > b ? a : b; }));
    Floats sum{};
    for (std::int64_t block = 0; block < blocks; ++block)
        for (std::int64_t at = 0; at < BLOCK_KEYS; at += LANES) {
            float* of = scores + block * GROUP_BLOCK + at;
            const Floats score = load(of);
            const Floats power = score > UNSEEN ? exp2<7>(score - top) : Floats{};
            sum += power;
            store(of, power);
        }
    return across(sum, [](float a, float b) { return a + b; });
}

// STEP columns of the sums of values, weighed. Partial sums end at fixed blocks, whichever of them are seen:
// a token's result is the same, bit by bit, whatever the others of its group see.
template <int ROWS>
void weigh(float* result, std::int64_t result_row, const float* weights, const float* values,
           std::int64_t values_row, Range<SeenBlock> seen) {
    constexpr std::int64_t TOGETHER = PARTIAL / BLOCK_KEYS;
    bool add = false;
    for (const SeenBlock* block = seen.first; block != seen.last; add = true) {
        Tile<ROWS, 2> part{};
        const std::int64_t end = (block->number / TOGETHER + 1) * TOGETHER;
        for (; block != seen.last && block->number < end; ++block)
            part = multiply_add<FloatWords>(
                part, {words(weights) + (block - seen.first) * GROUP_BLOCK, BLOCK_KEYS, 1},
                words(values) + block->number * BLOCK_KEYS * values_row, values_row, BLOCK_KEYS);
        for (int i = 0; i < ROWS; ++i)
            for (int l = 0; l < 2; ++l) {
                float* to = result + i * result_row + l * LANES;
                store(to, add ? load(to) + part.sum[i][l] : part.sum[i][l]);
            }
    }
}

}  // namespace

void packed_linear_panel(const PackedLinear& linear, std::int64_t panel) {
    const LinearLayer& layer = linear.layer;
    const Word* weight = words(layer.weight) + panel * layer.in * PANEL;
    in_tiles(linear.rows, [&](auto many, std::int64_t r) {
        const WordMatrix x{words(linear.x) + r * layer.in, layer.in, 1};
        for (std::int64_t at = 0; at < PANEL; at += STEP) {
            const std::int64_t column = panel * PANEL + at;
            if (column >= layer.out) return;
            float sums[TILE_ROWS * STEP];
            gemm_tile<FloatWords, many, 2>(sums, STEP, x, weight + at, PANEL, layer.in, false);
            for (int i = 0; i < many; ++i)
                for (int l = 0; l < STEP; l += LANES) {
                    const std::int64_t left = layer.out - column - l;
                    if (left <= 0) break;
                    Floats y = load(sums + i * STEP + l);
                    if (layer.bias) y += load(layer.bias + column + l, left);
                    if (linear.activation == Activation::gelu) y = gelu(y);
                    if (linear.activation == Activation::quick_gelu) y = quick_gelu<7>(y);
                    float* to = linear.y + (r + i) * layer.out + column + l;
                    if (linear.add) y += load(to, left);
                    store(to, y, left);
                }
        }
    });
}

void normalise(const RowNorm& norm, const float* x, std::int64_t width, float* y) {
    if (norm.bias)
        normalise_row<true>(x, norm.weight, norm.bias, width, norm.eps, y);
    else
        normalise_row<false>(x, norm.weight, norm.bias, width, norm.eps, y);
}

std::int64_t attend_step_workspace(const StepAttention& attention) {
    const std::int64_t keys = attention.step.most_blocks * BLOCK_KEYS;
    return GROUP * (attention.cache.width + keys + attention.cache.padded_width());
}

void attend_step_one(const StepAttention& attention, std::int64_t image, std::int64_t head,
                     float* workspace) {
    const StepCache& cache = attention.cache;
    const Step& step = attention.step;
    const std::int64_t width = cache.width, padded = cache.padded_width();
    float* keys = cache.keys + (image * cache.heads + head) * cache.blocks * BLOCK_KEYS * width;
    float* values = cache.values + (image * cache.heads + head) * cache.blocks * BLOCK_KEYS * padded;
    const auto row = [&](const StepTokens& x, std::int64_t i) {
        return x.data + image * x.batch_stride + i * x.row_stride + head * x.head_stride;
    };
    for (std::int64_t i = 0; i < step.tokens; ++i) {
        const std::int64_t slot = step.slots[i];
        float* key = keys + keys_at(slot / BLOCK_KEYS, width) + slot % BLOCK_KEYS;
        for (std::int64_t d = 0; d < width; ++d) key[d * KEYS_ROW] = row(attention.k, i)[d];
        std::copy_n(row(attention.v, i), width, values + slot * padded);
    }
    float* queries = workspace;
    float* scores = queries + GROUP * width;
    float* result = scores + step.most_blocks * GROUP_BLOCK;
    for (std::int64_t group = 0; group * GROUP < step.tokens; ++group) {
        const Range<SeenBlock> seen{step.blocks + step.group_blocks[group],
                                    step.blocks + step.group_blocks[group + 1]};
        in_tiles(std::min(GROUP, step.tokens - group * GROUP), [&](auto many, std::int64_t first) {
            const std::int64_t token = group * GROUP + first;
            for (int i = 0; i < many; ++i)
                for (std::int64_t d = 0; d < width; ++d)
                    queries[d * GROUP + i] = row(attention.q, token + i)[d];
            Floats most[many];
            score<many>(scores, most, queries, keys, width, seen, step.masks, first,
                        attention.scale * LOG2_E);
            float inverse[many];
            for (int i = 0; i < many; ++i)
                inverse[i] = 1.0f / exponentials(scores + i * BLOCK_KEYS, seen.last - seen.first, most[i]);
            for (std::int64_t at = 0; at < padded; at += STEP)
                weigh<many>(result + at, padded, scores, values + at, padded, seen);
            for (int i = 0; i < many; ++i) {
                float* to = attention.out + ((image * step.tokens + token + i) * cache.heads + head) * width;
                for (std::int64_t d = 0; d < width; d += LANES)
                    store(to + d, load(result + i * padded + d) * inverse[i], width - d);
            }
        });
    }
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
