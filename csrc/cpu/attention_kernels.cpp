// Attention of one image and head with AVX-512 and its bfloat16 products.
//
// Scores are kept turned, a row a key and a lane a query: the softmax then runs down the rows with no
// shuffle, the keys are read as they lie in memory, and the probabilities come out in the order in which the
// next product wants them. 32 queries are worked on at a time, so the scores stay in the first-level cache.
#include "cpu/attention.h"
#include "cpu/word_gemm.h"

#include <algorithm>
#include <cstring>

namespace imagen_fast::avx512_bf16 {

namespace {

constexpr std::int64_t BLOCK = 2 * LANES;  // queries at a time

std::int64_t up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

// Where the listed rows of one image and head lie.
template <class T>
struct Rows {
    T* base;
    std::int64_t stride, count;
    const std::int32_t* index;

    Rows(const TokenView& view, const RowList& list, std::int64_t image, std::int64_t head) {
        const std::int64_t start = list.spans ? list.spans[2 * image] : 0;
        count = list.spans ? std::min<std::int64_t>(list.spans[2 * image + 1], list.longest) : list.longest;
        index = list.index ? list.index + image * list.index_stride : nullptr;
        stride = view.row_stride;
        base =
            static_cast<T*>(view.data) + image * view.batch_stride + start * stride + head * view.head_stride;
    }

    T* operator[](std::int64_t i) const { return base + (index ? index[i] : i) * stride; }
};

// The sizes of one head's matrices. A width is counted in words along it, or in lanes across it.
template <class T>
struct Sizes {
    static constexpr int PER_WORD = Words<T>::PER_WORD;
    std::int64_t width, width_words, width_lanes, queries, keys, query_lanes, query_words, key_words;

    Sizes(std::int64_t width, std::int64_t queries, std::int64_t keys)
        : width(width),
          width_words(up(width, PER_WORD) / PER_WORD),
          width_lanes(up(width, LANES)),
          queries(queries),
          keys(keys),
          query_lanes(up(queries, BLOCK)),
          query_words(query_lanes / PER_WORD),
          key_words(up(keys, PER_WORD) / PER_WORD) {}
};

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

__mmask16 mask_of(std::int64_t n) {
    return static_cast<__mmask16>(n >= LANES ? 0xffff : (1u << std::max<std::int64_t>(n, 0)) - 1);
}

// Rows as they lie: [n][width_words].
template <class T>
void copy_rows(const Rows<T>& rows, std::int64_t n, std::int64_t width_words, Word* to) {
    for (std::int64_t i = 0; i < n; ++i)
        std::memcpy(to + i * width_words, rows[i], width_words * sizeof(Word));
}

// Rows turned: [width_words][32], lane i is row first + i; rows past the last are zero.
template <class T>
void turn_rows(const Rows<T>& rows, std::int64_t first, std::int64_t width_words, Word* to) {
    for (std::int64_t half = 0; half < BLOCK; half += LANES)
        for (std::int64_t w = 0; w < width_words; w += LANES) {
            __m512i tile[LANES];
            const __mmask16 mask = mask_of(width_words - w);
            for (int i = 0; i < LANES; ++i) {
                const std::int64_t row = first + half + i;
                tile[i] = row < rows.count
                              ? _mm512_maskz_loadu_epi32(mask, reinterpret_cast<const Word*>(rows[row]) + w)
                              : _mm512_setzero_si512();
            }
            transpose(tile);
            for (int i = 0; i < std::min<std::int64_t>(LANES, width_words - w); ++i)
                _mm512_storeu_si512(to + (w + i) * BLOCK + half, tile[i]);
        }
}

// Rows with words across them: [ceil(n / PER_WORD)][width_lanes]; a word holds one column of neighbouring
// rows.
inline void word_rows(const Rows<float>& rows, std::int64_t n, const Sizes<float>& size, Word* to) {
    for (std::int64_t i = 0; i < n; ++i) {
        Word* row = to + i * size.width_lanes;
        std::memset(row + size.width, 0, (size.width_lanes - size.width) * sizeof(Word));
        if (i < rows.count)
            std::memcpy(row, rows[i], size.width * sizeof(Word));
        else
            std::memset(row, 0, size.width * sizeof(Word));
    }
}

inline void word_rows(const Rows<BFloat16>& rows, std::int64_t n, const Sizes<BFloat16>& size, Word* to) {
    for (std::int64_t i = 0; i < n; i += 2)
        for (std::int64_t j = 0; j < size.width_lanes; j += LANES) {
            const __mmask16 mask = mask_of(size.width - j);
            const auto load = [&](std::int64_t row) {
                return row < rows.count ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, rows[row] + j))
                                        : _mm512_setzero_si512();
            };
            const __m512i pair = _mm512_or_si512(load(i), _mm512_slli_epi32(load(i + 1), 16));
            _mm512_storeu_si512(to + i / 2 * size.width_lanes + j, pair);
        }
}

// Two rows of scores (keys n and n + 1) as words for the next product.
inline void store_words(Word* to, std::int64_t n, __m512 even, __m512, Words<float>) {
    _mm512_storeu_ps(reinterpret_cast<float*>(to) + n * BLOCK, even);
}

inline __m512i pair_words(__m512 even, __m512 odd) {
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
    const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// Scores [keys][32] as the right side of a product over keys: [key_words][32].
template <class T>
void key_words(const float* scores, std::int64_t keys, Word* to);

template <>
void key_words<float>(const float*, std::int64_t, Word*) {}  // they are words already

template <>
void key_words<BFloat16>(const float* scores, std::int64_t keys, Word* to) {
    for (std::int64_t n = 0; n < keys; n += 2)
        for (std::int64_t half = 0; half < BLOCK; half += LANES) {
            const __m512 even = _mm512_loadu_ps(scores + n * BLOCK + half);
            const __m512 odd =
                n + 1 < keys ? _mm512_loadu_ps(scores + (n + 1) * BLOCK + half) : _mm512_setzero_ps();
            _mm512_storeu_si512(to + n / 2 * BLOCK + half, pair_words(even, odd));
        }
}

// Scores [keys][32] as the left side of a product over queries: the 32 columns from `first` of
// [keys][query_lanes].
inline void query_words(const float* scores, std::int64_t keys, std::int64_t first, const Sizes<float>& size,
                        Word* to) {
    for (std::int64_t n = 0; n < keys; ++n)
        std::memcpy(to + n * size.query_words + first, scores + n * BLOCK, BLOCK * sizeof(float));
}

inline void query_words(const float* scores, std::int64_t keys, std::int64_t first,
                        const Sizes<BFloat16>& size, Word* to) {
    for (std::int64_t n = 0; n < keys; ++n)
        for (std::int64_t half = 0; half < BLOCK; half += LANES)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + n * size.query_words + (first + half) / 2),
                                (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(scores + n * BLOCK + half)));
}

inline void store_row(float* to, __m512 value, __mmask16 mask) { _mm512_mask_storeu_ps(to, mask, value); }
inline void store_row(BFloat16* to, __m512 value, __mmask16 mask) {
    _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(value));
}

// [width][32] turned back into rows, each lane times its factor.
template <class T>
void write_turned(float* turned, const float* factor, const Rows<T>& rows, std::int64_t first,
                  std::int64_t width) {
    for (std::int64_t half = 0; half < BLOCK && first + half < rows.count; half += LANES)
        for (std::int64_t w = 0; w < width; w += LANES) {
            __m512i tile[LANES];
            const __m512 scale = _mm512_loadu_ps(factor + half);
            for (int i = 0; i < LANES; ++i)
                tile[i] = w + i < width ? _mm512_castps_si512(_mm512_mul_ps(
                                              _mm512_loadu_ps(turned + (w + i) * BLOCK + half), scale))
                                        : _mm512_setzero_si512();
            transpose(tile);
            const std::int64_t many = std::min<std::int64_t>(LANES, rows.count - first - half);
            for (std::int64_t i = 0; i < many; ++i)
                store_row(rows[first + half + i] + w, _mm512_castsi512_ps(tile[i]), mask_of(width - w));
        }
}

template <class T>
void write_rows(const float* from, std::int64_t from_row, const Rows<T>& rows, std::int64_t width) {
    for (std::int64_t i = 0; i < rows.count; ++i)
        for (std::int64_t j = 0; j < width; j += LANES)
            store_row(rows[i] + j, _mm512_loadu_ps(from + i * from_row + j), mask_of(width - j));
}

// exp2((score - extreme of the lane) * factor) in place, and one over the sum of each lane. The extreme is
// the largest score, or with a negative factor the smallest: no exponent is ever above 0.
void softmax(float* scores, std::int64_t keys, float factor, float* inverse) {
    for (std::int64_t half = 0; half < BLOCK; half += LANES) {
        float* column = scores + half;
        __m512 most = _mm512_loadu_ps(column);
        for (std::int64_t n = 1; n < keys; ++n) {
            const __m512 score = _mm512_loadu_ps(column + n * BLOCK);
            most = factor < 0 ? _mm512_min_ps(most, score) : _mm512_max_ps(most, score);
        }
        const __m512 scale = _mm512_set1_ps(factor), shift = _mm512_mul_ps(most, scale);
        __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (std::int64_t n = 0; n < keys; ++n) {
            const __m512 e = exp2(_mm512_fmsub_ps(_mm512_loadu_ps(column + n * BLOCK), scale, shift));
            _mm512_storeu_ps(column + n * BLOCK, e);
            sum[n & 1] = _mm512_add_ps(sum[n & 1], e);
        }
        _mm512_storeu_ps(inverse + half, _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_add_ps(sum[0], sum[1])));
    }
}

constexpr float LOG2_E = 1.44269504f;

template <class T>
void forward(const Attention& a, const TokenView& out_view, std::int64_t image, std::int64_t head,
             float* memory) {
    const Rows<T> q(a.q, a.queries, image, head), k(a.k, a.keys, image, head), v(a.v, a.keys, image, head);
    const Rows<T> out(out_view, a.queries, image, head);
    if (!q.count || !k.count) return;
    const Sizes<T> size(a.width, q.count, k.count);
    Workspace work{memory};
    Word* keys = work.words(size.keys * size.width_words);
    Word* values = work.words(size.key_words * size.width_lanes);
    Word* turned = work.words(size.width_words * BLOCK);
    float* scores = work.floats(size.keys * BLOCK);
    Word* words =
        Sizes<T>::PER_WORD == 1 ? reinterpret_cast<Word*>(scores) : work.words(size.key_words * BLOCK);
    float* result = work.floats(size.width * BLOCK);
    float* inverse = work.floats(BLOCK);

    copy_rows(k, size.keys, size.width_words, keys);
    word_rows(v, size.keys, size, values);
    for (std::int64_t first = 0; first < size.queries; first += BLOCK) {
        turn_rows(q, first, size.width_words, turned);
        gemm<T>(scores, BLOCK, {keys, size.width_words, 1}, turned, BLOCK, size.keys, BLOCK,
                size.width_words);
        softmax(scores, size.keys, a.scale * LOG2_E, inverse);
        key_words<T>(scores, size.keys, words);
        gemm<T>(result, BLOCK, {values, 1, size.width_lanes}, words, BLOCK, size.width, BLOCK,
                size.key_words);
        write_turned(result, inverse, out, first, size.width);
    }
}

// probabilities *= inverse, and d_scores = p * (d_p - sum over keys of p * d_p) * scale in place of d_p.
void softmax_backward(float* probabilities, float* d_scores, std::int64_t keys, const float* inverse,
                      float scale) {
    for (std::int64_t half = 0; half < BLOCK; half += LANES) {
        const __m512 one_over = _mm512_loadu_ps(inverse + half), factor = _mm512_set1_ps(scale);
        __m512 delta[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (std::int64_t n = 0; n < keys; ++n) {
            float* p = probabilities + n * BLOCK + half;
            const __m512 normal = _mm512_mul_ps(_mm512_loadu_ps(p), one_over);
            _mm512_storeu_ps(p, normal);
            delta[n & 1] =
                _mm512_fmadd_ps(normal, _mm512_loadu_ps(d_scores + n * BLOCK + half), delta[n & 1]);
        }
        const __m512 sum = _mm512_add_ps(delta[0], delta[1]);
        for (std::int64_t n = 0; n < keys; ++n) {
            float* d = d_scores + n * BLOCK + half;
            const __m512 p = _mm512_mul_ps(_mm512_loadu_ps(probabilities + n * BLOCK + half), factor);
            _mm512_storeu_ps(d, _mm512_mul_ps(p, _mm512_sub_ps(_mm512_loadu_ps(d), sum)));
        }
    }
}

template <class T>
void backward(const Attention& a, const TokenView& d_out_view, const TokenView& d_q_view,
              const TokenView& d_k_view, const TokenView& d_v_view, std::int64_t image, std::int64_t head,
              float* memory) {
    const Rows<T> q(a.q, a.queries, image, head), k(a.k, a.keys, image, head), v(a.v, a.keys, image, head);
    const Rows<T> d_out(d_out_view, a.queries, image, head), d_q(d_q_view, a.queries, image, head);
    const Rows<T> d_k(d_k_view, a.keys, image, head), d_v(d_v_view, a.keys, image, head);
    if (!q.count || !k.count) return;
    const Sizes<T> size(a.width, q.count, k.count);
    Workspace work{memory};
    Word* keys = work.words(size.keys * size.width_words);
    Word* values = work.words(size.keys * size.width_words);
    Word* keys_across = work.words(size.key_words * size.width_lanes);
    Word* queries_across = work.words(size.query_words * size.width_lanes);
    Word* d_out_across = work.words(size.query_words * size.width_lanes);
    Word* turned = work.words(size.width_words * BLOCK);
    float* scores = work.floats(size.keys * BLOCK);
    float* d_scores = work.floats(size.keys * BLOCK);
    Word* words =
        Sizes<T>::PER_WORD == 1 ? reinterpret_cast<Word*>(d_scores) : work.words(size.key_words * BLOCK);
    float* result = work.floats(size.width * BLOCK);
    float* inverse = work.floats(BLOCK);
    Word* all_p = work.words(size.keys * size.query_words);
    Word* all_ds = work.words(size.keys * size.query_words);
    float* sums = work.floats(size.keys * size.width_lanes);
    float ones[BLOCK];
    std::fill(ones, ones + BLOCK, 1.0f);

    copy_rows(k, size.keys, size.width_words, keys);
    copy_rows(v, size.keys, size.width_words, values);
    word_rows(k, size.keys, size, keys_across);
    word_rows(q, size.query_lanes, size, queries_across);
    word_rows(d_out, size.query_lanes, size, d_out_across);
    for (std::int64_t first = 0; first < size.queries; first += BLOCK) {
        turn_rows(q, first, size.width_words, turned);
        gemm<T>(scores, BLOCK, {keys, size.width_words, 1}, turned, BLOCK, size.keys, BLOCK,
                size.width_words);
        softmax(scores, size.keys, a.scale * LOG2_E, inverse);
        turn_rows(d_out, first, size.width_words, turned);
        gemm<T>(d_scores, BLOCK, {values, size.width_words, 1}, turned, BLOCK, size.keys, BLOCK,
                size.width_words);
        softmax_backward(scores, d_scores, size.keys, inverse, a.scale);
        query_words(scores, size.keys, first, size, all_p);
        query_words(d_scores, size.keys, first, size, all_ds);
        key_words<T>(d_scores, size.keys, words);
        gemm<T>(result, BLOCK, {keys_across, 1, size.width_lanes}, words, BLOCK, size.width, BLOCK,
                size.key_words);
        write_turned(result, ones, d_q, first, size.width);
    }
    gemm<T>(sums, size.width_lanes, {all_ds, size.query_words, 1}, queries_across, size.width_lanes,
            size.keys, size.width_lanes, size.query_words);
    write_rows(sums, size.width_lanes, d_k, size.width);
    gemm<T>(sums, size.width_lanes, {all_p, size.query_words, 1}, d_out_across, size.width_lanes, size.keys,
            size.width_lanes, size.query_words);
    write_rows(sums, size.width_lanes, d_v, size.width);
}

}  // namespace

// An upper bound for both types, with a cache line for the rounding of each part.
std::int64_t attention_workspace(const Attention& a, bool backward) {
    const Sizes<float> s(a.width, a.queries.longest, a.keys.longest);
    const std::int64_t across = (s.keys + 1) * s.width_lanes, block = (s.keys + s.width_lanes + 1) * BLOCK;
    std::int64_t floats = 3 * across + 4 * block + 16 * BLOCK;
    if (backward) floats += 2 * across + 2 * s.query_lanes * s.width_lanes + 2 * (s.keys + 1) * s.query_lanes;
    return floats;
}

void attention_forward_one(const Attention& a, const TokenView& out, std::int64_t image, std::int64_t head,
                           float* workspace) {
    if (a.dtype == DType::float32) return forward<float>(a, out, image, head, workspace);
    forward<BFloat16>(a, out, image, head, workspace);
}

void attention_backward_one(const Attention& a, const TokenView& d_out, const TokenView& d_q,
                            const TokenView& d_k, const TokenView& d_v, std::int64_t image, std::int64_t head,
                            float* workspace) {
    if (a.dtype == DType::float32) return backward<float>(a, d_out, d_q, d_k, d_v, image, head, workspace);
    backward<BFloat16>(a, d_out, d_q, d_k, d_v, image, head, workspace);
}

}  // namespace imagen_fast::avx512_bf16
