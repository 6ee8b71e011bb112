#include "cpu/attention.h"

#include <pybind11/stl.h>

#include <array>

#include "bindings/registers.h"
#include "bindings/windows.h"
#include "cpu/causal_keys.h"

namespace py = pybind11;

namespace imagen_fast {

namespace {

// (address, batch stride, row stride, head stride)
using View = std::array<std::int64_t, 4>;
// (spans, index, index stride, longest)
using List = std::array<std::int64_t, 4>;

TokenView view(const View& v) { return {pointer<void>(static_cast<Address>(v[0])), v[1], v[2], v[3]}; }

RowList list(const List& l) {
    return {pointer<const std::int32_t>(static_cast<Address>(l[0])),
            pointer<const std::int32_t>(static_cast<Address>(l[1])), l[2], l[3]};
}

Attention problem(const View& q, const View& k, const View& v, const List& queries, const List& keys,
                  std::array<std::int64_t, 3> shape, int dtype, float scale) {
    return {view(q),       view(k),    view(v),
            list(queries), list(keys), shape[0],
            shape[1],      shape[2],   static_cast<DType>(dtype),
            scale,         nullptr,    0};
}

// Its tables, and what points into them.
struct Causal {
    CausalKeys keys;
    SeenKeys seen = keys.seen();

    Causal(const WindowNumbers& numbers, int dtype)
        : keys(window(numbers), IMAGEN_FAST_BEST_BF16(attention_block)(),
               IMAGEN_FAST_BEST_BF16(attention_share)(static_cast<DType>(dtype))) {}
};

Attention causal_problem(const View& q, const View& k, const View& v, const Causal& causal,
                         std::array<std::int64_t, 3> shape, int dtype, float scale) {
    const std::vector<std::int32_t>& order = causal.keys.order();
    const RowList rows{nullptr, order.data(), 0, static_cast<std::int64_t>(order.size())};
    return {view(q),  view(k),      view(v),
            rows,     rows,         shape[0],
            shape[1], shape[2],     static_cast<DType>(dtype),
            scale,    &causal.seen, causal.keys.pixels()};
}

}  // namespace

void register_attention(py::module_& m) {
    using release = py::call_guard<py::gil_scoped_release>;
    py::class_<Causal>(m, "CausalKeys")
        .def(py::init<const WindowNumbers&, int>(), py::kw_only(), py::arg("window"), py::arg("dtype"));
    py::class_<Attention>(m, "Attention")
        .def(py::init(&problem), py::kw_only(), py::arg("q"), py::arg("k"), py::arg("v"), py::arg("queries"),
             py::arg("keys"), py::arg("shape"), py::arg("dtype"), py::arg("scale"))
        .def(py::init(&causal_problem), py::kw_only(), py::arg("q"), py::arg("k"), py::arg("v"),
             py::arg("causal"), py::arg("shape"), py::arg("dtype"), py::arg("scale"), py::keep_alive<1, 5>())
        .def(
            "forward",
            [](const Attention& a, const View& out, Address statistics, int threads) {
                attention_forward(a, view(out), pointer<float>(statistics), threads);
            },
            py::kw_only(), py::arg("out"), py::arg("statistics"), py::arg("threads"), release())
        .def(
            "backward",
            [](const Attention& a, const View& out, Address statistics, const View& d_out, const View& d_q,
               const View& d_k, const View& d_v, int threads) {
                attention_backward(a, view(out), pointer<const float>(statistics), view(d_out),
                                   {view(d_q), view(d_k), view(d_v)}, threads);
            },
            py::kw_only(), py::arg("out"), py::arg("statistics"), py::arg("d_out"), py::arg("d_q"),
            py::arg("d_k"), py::arg("d_v"), py::arg("threads"), release());
}

}  // namespace imagen_fast
