// Attention of one image and head. Compiled once per instruction set; see instruction_set.h.
//
// Scores are kept turned, a row a key and a lane a query: the softmax then runs down the rows with no
// shuffle, the keys are read as they lie in memory, and the probabilities come out in the order in which the
// next product wants them. Two registers of queries are worked on at a time, or one where no more are
// left, so that the scores stay in the first-level cache. With each row's maximum and sum kept from the
// forward, the backward makes probabilities and their gradients tile by tile in registers (Dao 2023,
// FlashAttention-2), and adds a share of the queries at a time to the gradients of keys and values: what it
// holds grows with the rows, not with their square.
#include "cpu/attention.h"
#include "cpu/attention_rows.h"
#include "cpu/attention_seen.h"

#include <array>

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

namespace {

constexpr float LOG2_E = 1.44269504f;
constexpr float LOWEST = -3.4e38f;

template <class T>
constexpr int EXP2_DEGREE = std::is_same_v<T, BFloat16> ? 4 : 7;

// A bump allocator over the workspace; everything starts on a cache line.
struct Workspace {
    float* next;

    float* floats(std::int64_t n) {
        float* here = next;
        next += up(n, LANES);
        return here;
    }
    Word* words(std::int64_t n) { return reinterpret_cast<Word*>(floats(n)); }
};

// Calls work(Number<VECTORS>, first query) for blocks of two registers of queries; the last may have one.
template <class Work>
void in_blocks(std::int64_t first, std::int64_t end, Work work) {
    for (; first + LANES < end; first += BLOCK) work(Number<2>{}, first);
    if (first < end) work(Number<1>{}, first);
}

// What one head reads. Its rows lie far apart, each in a page of its own, where no processor's prefetcher
// follows: while a head is worked on, the rows of the next are asked for, a share of them with each block.
template <class T, bool LISTED, int N>
struct Inputs {
    std::array<Rows<T, LISTED>, N> rows;

    // Inlined by force: GCC drops calls of a function that does nothing but prefetch.
    __attribute__((always_inline)) void prefetch(std::int64_t first, std::int64_t many, std::int64_t of,
                                                 std::int64_t width) const {
        for (const Rows<T, LISTED>& each : rows) {
            const std::int64_t end = std::min(each.count, (first + many) * each.count / of + 1);
            for (std::int64_t i = first * each.count / of; i < end; ++i)
                for (std::int64_t byte = 0; byte < width * std::int64_t(sizeof(T)); byte += 64)
                    __builtin_prefetch(reinterpret_cast<const char*>(each[i]) + byte);
        }
    }
};

template <class T, bool LISTED>
Inputs<T, LISTED, 3> forward_inputs(const Attention& a, std::int64_t image, std::int64_t head) {
    return {{Rows<T, LISTED>(a.q, a.queries, image, head), Rows<T, LISTED>(a.k, a.keys, image, head),
             Rows<T, LISTED>(a.v, a.keys, image, head)}};
}

template <class T, bool LISTED>
void forward(const Attention& a, const TokenView& out_view, float* statistics, std::int64_t image,
             std::int64_t head, float* memory) {
    using W = typename WordsOf<T>::type;
    const auto& [q, k, v] = forward_inputs<T, LISTED>(a, image, head).rows;
    const std::int64_t following = std::min(image * a.heads + head + 1, a.batch * a.heads - 1);
    const auto next = forward_inputs<T, LISTED>(a, following / a.heads, following % a.heads);
    const Rows<T, LISTED> out(out_view, a.queries, image, head);
    if (!q.count || !k.count) return;
    const Sizes<T> size(a.width, q.count, k.count);
    const Seeing<T, LISTED> seeing(a, size);
    Workspace work{memory};
    Word* keys = work.words(size.keys * size.width_words);
    Word* values = work.words(size.key_words * size.width_lanes);
    Word* turned = work.words(size.width_words * BLOCK);
    float* scores = work.floats(size.keys * BLOCK);
    Word* words = work.words((size.keys + 1) * BLOCK);
    float* result = work.floats(size.width * BLOCK);
    const Floats factor = all(a.scale * LOG2_E);

    copy_rows(k, size.width_words, keys, W{});
    word_rows(v, size.keys, size.width, values, W{});
    in_blocks(0, size.queries, [&](auto vectors, std::int64_t first) {
        constexpr int V = vectors, STEP = V * LANES;
        next.prefetch(first, STEP, size.queries, size.width);
        turn_rows<W, V>(q, first, size.width_words, turned);
        Floats most[V], sum[V];
        for (int l = 0; l < V; ++l) {
            most[l] = all(LOWEST);
            sum[l] = Floats{};
        }
        seeing.each_run(first / BLOCK, [&](const Run run) {
            in_tiles(run.count, [&](auto many, std::int64_t n) {
                const auto s =
                    multiply<W, many, V>({keys + (run.from + n) * size.width_words, size.width_words, 1},
                                         turned, STEP, size.width_words);
                for (int i = 0; i < many; ++i)
                    for (int l = 0; l < V; ++l) {
                        const Floats score = seeing.where(run, n + i, l, s.sum[i][l] * factor, all(LOWEST));
                        most[l] = larger(most[l], score);
                        store(scores + (run.at + n + i) * STEP + l * LANES, score);
                    }
            });
        });
        seeing.each_run(first / BLOCK, [&](const Run run) {
            for (std::int64_t n = 0; n < run.count; n += 2)
                for (int l = 0; l < V; ++l) {
                    const auto power = [&](std::int64_t i) {
                        const float* score = scores + (run.at + i) * STEP + l * LANES;
                        return seeing.where(run, i, l, exp2<EXP2_DEGREE<T>>(load(score) - most[l]), Floats{});
                    };
                    const Floats even = power(n), odd = n + 1 < run.count ? power(n + 1) : Floats{};
                    sum[l] += even + odd;
                    store_pair_words(words + (run.at + n) / Sizes<T>::PER_WORD * STEP + l * LANES, STEP, even,
                                     odd, W{});
                }
        });
        gemm<W>(result, STEP, {values, 1, size.width_lanes}, words, STEP, size.width, STEP,
                seeing.keys(first / BLOCK));
        Floats inverse[V];
        for (int l = 0; l < V; ++l) {
            inverse[l] = 1.0f / sum[l];
            seeing.store_kept(statistics, most[l], first + l * LANES);
            seeing.store_kept(statistics + a.kept(), inverse[l], first + l * LANES);
        }
        write_turned<V>(result, inverse, out, first, size.width);
    });
}

template <class T, bool LISTED>
Inputs<T, LISTED, 5> backward_inputs(const Attention& a, const TokenView& out, const TokenView& d_out,
                                     std::int64_t image, std::int64_t head) {
    const auto& [q, k, v] = forward_inputs<T, LISTED>(a, image, head).rows;
    return {{q, k, v, Rows<T, LISTED>(out, a.queries, image, head),
             Rows<T, LISTED>(d_out, a.queries, image, head)}};
}

template <class T, bool LISTED>
void backward(const Attention& a, const TokenView& out_view, const float* statistics,
              const TokenView& d_out_view, const AttentionGradients& gradients, std::int64_t image,
              std::int64_t head, float* memory) {
    using W = typename WordsOf<T>::type;
    const auto& [q, k, v, out, d_out] = backward_inputs<T, LISTED>(a, out_view, d_out_view, image, head).rows;
    const std::int64_t following = std::min(image * a.heads + head + 1, a.batch * a.heads - 1);
    const auto next =
        backward_inputs<T, LISTED>(a, out_view, d_out_view, following / a.heads, following % a.heads);
    const Rows<T, LISTED> d_q(gradients.q, a.queries, image, head);
    const Rows<T, LISTED> d_k(gradients.k, a.keys, image, head), d_v(gradients.v, a.keys, image, head);
    if (!q.count || !k.count) return;
    const Sizes<T> size(a.width, q.count, k.count);
    const Seeing<T, LISTED> seeing(a, size);
    const std::int64_t width_words = size.width_words, row = size.share_row();
    Workspace work{memory};
    Word* keys = work.words(size.keys * width_words);
    Word* values = work.words(size.keys * width_words);
    Word* keys_across = work.words(size.key_words * size.width_lanes);
    Word* queries_across = work.words(size.query_words * size.width_lanes);
    Word* d_out_across = work.words(size.query_words * size.width_lanes);
    Word* q_turned = work.words(width_words * BLOCK);
    Word* d_out_turned = work.words(width_words * BLOCK);
    Word* out_turned = work.words(width_words * BLOCK);
    Word* words = work.words((size.keys + 1) * BLOCK);
    float* result = work.floats(size.width * BLOCK);
    Word* all_p = work.words(size.keys * row);
    Word* all_ds = work.words(size.keys * row);
    float* d_k_sums = work.floats(size.keys * size.width_lanes);
    float* d_v_sums = work.floats(size.keys * size.width_lanes);
    const Floats factor = all(a.scale * LOG2_E);

    copy_rows(k, width_words, keys, W{});
    copy_rows(v, width_words, values, W{});
    word_rows(k, size.keys, size.width, keys_across, W{});
    word_rows(q, size.query_lanes, size.width, queries_across, W{});
    word_rows(d_out, size.query_lanes, size.width, d_out_across, W{});
    for (std::int64_t share = 0; share < size.queries; share += size.SHARE) {
        in_blocks(share, std::min(share + size.SHARE, size.queries), [&](auto vectors, std::int64_t first) {
            constexpr int V = vectors, STEP = V * LANES, PER_WORD = Sizes<T>::PER_WORD;
            next.prefetch(first, STEP, size.queries, size.width);
            turn_rows<W, V>(q, first, width_words, q_turned);
            turn_rows<W, V>(d_out, first, width_words, d_out_turned);
            turn_rows<W, V>(out, first, width_words, out_turned);
            // delta = sum over keys of p * d_p = sum over the width of out * d_out, in the order in which d_p
            // is summed: who sees one key only gets exact zeros.
            Floats delta[V], most[V], inverse[V], scale[V];
            for (int l = 0; l < V; ++l) {
                const std::int64_t lane = first + l * LANES;
                scale[l] = all(a.scale);
                most[l] = seeing.load_kept(statistics, lane);
                inverse[l] = seeing.load_kept(statistics + a.kept(), lane);
                delta[l] = Floats{};
                for (std::int64_t w = 0; w < width_words; ++w)
                    delta[l] = W::multiply_add(delta[l], read<Bits>(out_turned + w * STEP + l * LANES),
                                               read<Bits>(d_out_turned + w * STEP + l * LANES));
            }
            seeing.each_run(first / BLOCK, [&](const Run run) {
                in_tiles(run.count, [&](auto many, std::int64_t n) {
                    const std::int64_t key = run.from + n;
                    auto p = multiply<W, many, V>({keys + key * width_words, width_words, 1}, q_turned, STEP,
                                                  width_words);
                    for (int i = 0; i < many; ++i) {
                        for (int l = 0; l < V; ++l)
                            p.sum[i][l] = seeing.where(
                                run, n + i, l,
                                exp2<EXP2_DEGREE<T>>(p.sum[i][l] * factor - most[l]) * inverse[l], Floats{});
                        store_row_words(all_p + (key + i) * row + (first - share) / PER_WORD, p.sum[i], W{});
                    }
                    auto ds = multiply<W, many, V>({values + key * width_words, width_words, 1}, d_out_turned,
                                                   STEP, width_words);
                    for (int i = 0; i < many; ++i) {
                        for (int l = 0; l < V; ++l) ds.sum[i][l] = p.sum[i][l] * (ds.sum[i][l] - delta[l]);
                        store_row_words(all_ds + (key + i) * row + (first - share) / PER_WORD, ds.sum[i],
                                        W{});
                    }
                    for (int i = 0; i < many; i += 2)
                        for (int l = 0; l < V; ++l)
                            store_pair_words(words + (run.at + n + i) / PER_WORD * STEP + l * LANES, STEP,
                                             ds.sum[i][l], i + 1 < many ? ds.sum[i + 1][l] : Floats{}, W{});
                });
            });
            gemm<W>(result, STEP, {keys_across, 1, size.width_lanes}, words, STEP, size.width, STEP,
                    seeing.keys(first / BLOCK));
            write_turned<V>(result, scale, d_q, first, size.width);
        });
        const std::int64_t across = share / Sizes<T>::PER_WORD * size.width_lanes;
        seeing.each_strip(share, [&](std::int64_t from, std::int64_t count, auto queries, bool before) {
            const std::int64_t to = from * size.width_lanes;
            gemm<W>(d_k_sums + to, size.width_lanes, {all_ds + from * row, row, 1}, queries_across + across,
                    size.width_lanes, count, size.width_lanes, queries, before);
            gemm<W>(d_v_sums + to, size.width_lanes, {all_p + from * row, row, 1}, d_out_across + across,
                    size.width_lanes, count, size.width_lanes, queries, before);
        });
    }
    write_rows(d_k_sums, size.width_lanes, a.scale, d_k, size.width);
    write_rows(d_v_sums, size.width_lanes, 1.0f, d_v, size.width);
}

// Calls work(a number of the type, whether the keys that are seen are listed).
template <class Work>
void for_case(const Attention& a, Work work) {
    const auto typed = [&](auto number) {
        if (a.seen)
            work(number, std::true_type{});
        else
            work(number, std::false_type{});
    };
    if (a.dtype == DType::float32)
        typed(float{});
    else
        typed(BFloat16{});
}

}  // namespace

std::int64_t attention_block() { return BLOCK; }

std::int64_t attention_share(DType dtype) {
    return dtype == DType::float32 ? Sizes<float>::SHARE : Sizes<BFloat16>::SHARE;
}

// An upper bound for both types and passes, with a cache line for the rounding of each part.
std::int64_t attention_workspace(const Attention& a) {
    const Sizes<float> s(a.width, a.queries.longest, a.keys.longest);
    const std::int64_t key_side = (s.keys + 1) * s.width_lanes, query_side = s.query_lanes * s.width_lanes;
    const std::int64_t block = (s.keys + 2 * s.width_lanes + 2) * BLOCK;
    return 5 * key_side + 2 * query_side + 2 * s.keys * s.share_row() + 2 * block + 17 * LANES;
}

void attention_forward_one(const Attention& a, const TokenView& out, float* statistics, std::int64_t image,
                           std::int64_t head, float* workspace) {
    for_case(a, [&](auto number, auto listed) {
        forward<decltype(number), listed>(a, out, statistics, image, head, workspace);
    });
}

void attention_backward_one(const Attention& a, const TokenView& out, const float* statistics,
                            const TokenView& d_out, const AttentionGradients& gradients, std::int64_t image,
                            std::int64_t head, float* workspace) {
    for_case(a, [&](auto number, auto listed) {
        backward<decltype(number), listed>(a, out, statistics, d_out, gradients, image, head, workspace);
    });
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
