#include "cpu/causal_softmax.h"

#include <algorithm>
#include <vector>

namespace imagen_fast {

namespace {

// What the query (j, k) sees, at most a run of each row and the prefix; returns how many runs there are.
std::int64_t seen_spans(const Window& w, std::int64_t j, std::int64_t k, KeySpan* spans) {
    std::int64_t many = 0;
    const auto add = [&](std::int64_t first, std::int64_t end) {
        if (many && first <= spans[many - 1].end)
            spans[many - 1].end = std::max(spans[many - 1].end, end);
        else
            spans[many++] = {first, end};
    };
    if (w.prefix) add(0, w.prefix);
    const std::int64_t left = std::max<std::int64_t>(0, k - w.left);
    for (std::int64_t y = std::max<std::int64_t>(0, j - w.above); y < j; ++y)
        add(y * w.width + left, y * w.width + std::min(w.width, k + w.right + 1));
    add(j * w.width + left, j * w.width + k + 1);
    return many;
}

void* row(const ScoreView& view, DType dtype, std::int64_t layer, std::int64_t i) {
    return static_cast<char*>(view.data) + (layer * view.layer_stride + i * view.row_stride) * size_of(dtype);
}

// Calls work(spans, how many, layer, row). A row's spans are found once for all layers.
template <class Work>
void for_each_row(const Window& w, std::int64_t layers, int threads, Work work) {
    const std::int64_t pixels = w.height * w.width;
#pragma omp parallel num_threads(threads)
    {
        std::vector<KeySpan> spans(static_cast<std::size_t>(w.height + 1));
#pragma omp for schedule(static)
        for (std::int64_t one = 0; one < pixels * layers; ++one) {
            const std::int64_t layer = one / pixels, i = one % pixels;
            const std::int64_t many = seen_spans(w, i / w.width, i % w.width, spans.data());
            work(spans.data(), many, layer, i);
        }
    }
}

}  // namespace

void causal_softmax_forward(const Window& window, std::int64_t layers, DType dtype, const ScoreView& scores,
                            const ScoreView& p, int threads) {
    const auto one = IMAGEN_FAST_BEST(causal_softmax_row);
    for_each_row(window, layers, threads,
                 [&](const KeySpan* spans, std::int64_t many, std::int64_t layer, std::int64_t i) {
                     one(spans, many, window.height * window.width, dtype, row(scores, dtype, layer, i),
                         row(p, dtype, layer, i));
                 });
}

void causal_softmax_backward(const Window& window, std::int64_t layers, DType dtype, const ScoreView& p,
                             const ScoreView& d_p, const ScoreView& d_scores, int threads) {
    const auto one = IMAGEN_FAST_BEST(causal_softmax_backward_row);
    for_each_row(window, layers, threads,
                 [&](const KeySpan* spans, std::int64_t many, std::int64_t layer, std::int64_t i) {
                     one(spans, many, window.height * window.width, dtype, row(p, dtype, layer, i),
                         row(d_p, dtype, layer, i), row(d_scores, dtype, layer, i));
                 });
}

}  // namespace imagen_fast
