// The sizes of one head's matrices, and which keys its queries see, for the attention kernels.
//
// Included by files that are compiled once per instruction set, each into a namespace of its own.
#pragma once

#include "cpu/attention_rows.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

constexpr std::int64_t BLOCK = 2 * LANES;  // queries at a time, at most

template <class T>
struct WordsOf {
    using type = FloatWords;
};
#if defined(__AVX512BF16__)
template <>
struct WordsOf<BFloat16> {
    using type = BFloat16Pairs;
};
#endif

// The sizes of one head's matrices. A width is counted in words along it, or in lanes across it.
template <class T>
struct Sizes {
    static constexpr int PER_WORD = WordsOf<T>::type::PER_WORD;
    std::int64_t width, width_words, width_lanes, queries, keys, query_lanes, query_words, key_words;

    Sizes(std::int64_t width, std::int64_t queries, std::int64_t keys)
        : width(width),
          width_words(up(width, PER_WORD) / PER_WORD),
          width_lanes(up(width, LANES)),
          queries(queries),
          keys(keys),
          query_lanes(up(queries, LANES)),
          query_words(query_lanes / PER_WORD),
          key_words(up(keys, PER_WORD) / PER_WORD) {}

    // The queries of one share are added to the gradients before the next are worked on. From one row of them
    // to the next: whole cache lines, wherever a block begins.
    static constexpr std::int64_t SHARE = PARTIAL * PER_WORD;
    std::int64_t share_row() const { return std::min(up(query_words, LANES), PARTIAL); }
};

// Which keys the queries of a block see, and which queries of a share see a key: all; or, LISTED, what lists
// say.
template <class T, bool LISTED>
class Seeing {
public:
    Seeing(const Attention& a, const Sizes<T>& size)
        : listed(a.seen), index(a.queries.index), kept(a.kept()), size(size) {}

    // Calls work(run) for each. A run is copied: what is stored meanwhile cannot change it.
    template <class Work>
    void each_run(std::int64_t block, Work work) const {
        if constexpr (LISTED)
            for (const Run run : keys(block)) work(run);
        else
            work(Run{0, 0, size.keys, nullptr});
    }

    // The steps of a product over the keys that a block sees.
    auto keys(std::int64_t block) const {
        if constexpr (LISTED)
            return Range<Run>{listed->runs + listed->block_runs[block],
                              listed->runs + listed->block_runs[block + 1]};
        else
            return size.key_words;
    }

    // Calls work(first key, count, steps of a product over their queries, whether an earlier share had some).
    template <class Work>
    void each_strip(std::int64_t share, Work work) const {
        if constexpr (LISTED) {
            const std::int64_t* strips = listed->share_strips + share / size.SHARE;
            for (std::int64_t i = strips[0]; i < strips[1]; ++i) {
                const Strip& strip = listed->strips[i];
                work(strip.from, strip.count, Range<Run>{strip.queries, strip.queries + strip.many},
                     strip.seen_before);
            }
        } else {
            work(0, size.keys, std::min(size.SHARE, size.query_lanes - share) / size.PER_WORD, share > 0);
        }
    }

    // x where the queries of the block's l-th register see the i-th key of a run, and `instead` elsewhere.
    static Floats where(const Run& run, std::int64_t i, int l, Floats x, Floats instead) {
        if constexpr (!LISTED) return x;
        Bits lane;
        for (int j = 0; j < LANES; ++j) lane[j] = 1u << j;
        const std::uint32_t bits = run.seen ? run.seen[i] >> l * LANES : ~0u;
        return ((Bits{} + bits) & lane) != 0 ? x : instead;
    }

    // Numbers of a query each, from `first` on in the list; zero for one that does not exist.
    Floats load_kept(const float* from, std::int64_t first) const {
        if constexpr (!LISTED) return load(from + first, kept - first);
        float some[LANES];
        for (int i = 0; i < LANES; ++i) some[i] = index[first + i] < 0 ? 0.0f : from[index[first + i]];
        return load(some);
    }
    void store_kept(float* to, Floats x, std::int64_t first) const {
        if constexpr (!LISTED) return store(to + first, x, kept - first);
        float some[LANES];
        store(some, x);
        for (int i = 0; i < LANES; ++i)
            if (index[first + i] >= 0) to[index[first + i]] = some[i];
    }

private:
    const SeenKeys* listed;
    const std::int32_t* index;
    std::int64_t kept;
    const Sizes<T>& size;
};

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
