#include "cpu/features.h"

#include <stdexcept>
#include <string>

#include "bindings/registers.h"
#include "build_info.h"
#include "cpu/instruction_set.h"
#include "cpu/memory.h"

namespace py = pybind11;

namespace imagen_fast {

namespace {

constexpr const char* names[] = {"portable", "avx2", "avx512", "avx512_bf16"};

py::dict features() {
    const CpuFeatures has = cpu_features();
    py::dict result;
    result["avx2"] = has.avx2;
    result["avx512f"] = has.avx512f;
    result["avx512_bf16"] = has.avx512_bf16;
    result["amx_bf16"] = has.amx_bf16;
    return result;
}

void use(const std::string& name) {
    for (int i = 0; i < 4; ++i)
        if (name == names[i]) return use_instruction_set(static_cast<InstructionSet>(i));
    throw std::invalid_argument("an instruction set is one of portable, avx2, avx512, avx512_bf16, not " +
                                name);
}

}  // namespace

void register_features(py::module_& m) {
    m.attr("left_out") = IMAGEN_FAST_LEFT_OUT;
    m.attr("compiler") = IMAGEN_FAST_COMPILER;
#if defined(_OPENMP)
    m.attr("openmp") = true;
#else
    m.attr("openmp") = false;
#endif
    m.def("cpu_features", features);
    m.def("keep_freed_memory", keep_freed_memory);
    m.def("instruction_set", [] { return names[static_cast<int>(instruction_set())]; });
    m.def("use_instruction_set", use, py::arg("name"));
}

}  // namespace imagen_fast
