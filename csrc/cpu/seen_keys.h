// Which keys each block of queries sees, as the attention kernels take it.
//
// Queries and keys are listed in one order, so that a block of neighbouring queries sees few runs of keys.
// Only runs that some query sees are listed: what is in none of them is never read.
#pragma once

#include <cstdint>

namespace imagen_fast {

// `count` rows from row `from` on, which are those from the `at`-th on of all that are listed.
struct Run {
    std::int64_t from, at, count;
    // Bit l of seen[i]: whether query l of the block sees the i-th key of the run. Null: all see all.
    const std::uint32_t* seen;
};

// `count` keys from key `from` on, and the queries of a share that are in a block which sees them.
struct Strip {
    std::int64_t from, count;
    const Run* queries;  // counted from the share's first
    std::int64_t many;
    bool seen_before;  // by an earlier share
};

// Block b sees runs[block_runs[b]] to runs[block_runs[b + 1]], and of share s come the strips likewise.
struct SeenKeys {
    const Run* runs;
    const std::int64_t* block_runs;
    const Strip* strips;
    const std::int64_t* share_strips;
};

}  // namespace imagen_fast
