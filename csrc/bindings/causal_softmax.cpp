#include "cpu/causal_softmax.h"

#include "bindings/registers.h"
#include "bindings/windows.h"

namespace py = pybind11;

namespace imagen_fast {

namespace {

// (address, layer stride, row stride)
using View = std::array<std::int64_t, 3>;

ScoreView view(const View& v) { return {pointer<void>(static_cast<Address>(v[0])), v[1], v[2]}; }

}  // namespace

void register_causal_softmax(py::module_& m) {
    using release = py::call_guard<py::gil_scoped_release>;
    m.def(
        "causal_softmax_forward",
        [](const WindowNumbers& numbers, std::int64_t layers, int dtype, const View& scores, const View& p,
           int threads) {
            causal_softmax_forward(window(numbers), layers, static_cast<DType>(dtype), view(scores), view(p),
                                   threads);
        },
        py::kw_only(), py::arg("window"), py::arg("layers"), py::arg("dtype"), py::arg("scores"),
        py::arg("p"), py::arg("threads"), release());
    m.def(
        "causal_softmax_backward",
        [](const WindowNumbers& numbers, std::int64_t layers, int dtype, const View& p, const View& d_p,
           const View& d_scores, int threads) {
            causal_softmax_backward(window(numbers), layers, static_cast<DType>(dtype), view(p), view(d_p),
                                    view(d_scores), threads);
        },
        py::kw_only(), py::arg("window"), py::arg("layers"), py::arg("dtype"), py::arg("p"), py::arg("d_p"),
        py::arg("d_scores"), py::arg("threads"), release());
}

}  // namespace imagen_fast
