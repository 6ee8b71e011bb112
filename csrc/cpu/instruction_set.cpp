#include "cpu/instruction_set.h"

#include <atomic>
#include <stdexcept>

#include "cpu/features.h"

namespace imagen_fast {

namespace {

InstructionSet best() {
#if defined(IMAGEN_FAST_X86)
    const CpuFeatures has = cpu_features();
#if defined(IMAGEN_FAST_AVX512_BF16)
    if (has.avx512_bf16) return InstructionSet::avx512_bf16;
#endif
    if (has.avx512f) return InstructionSet::avx512;
    if (has.avx2) return InstructionSet::avx2;
#endif
    return InstructionSet::portable;
}

std::atomic<InstructionSet>& chosen() {
    static std::atomic<InstructionSet> value{best()};
    return value;
}

}  // namespace

InstructionSet instruction_set() { return chosen().load(std::memory_order_relaxed); }

void use_instruction_set(InstructionSet wanted) {
    if (wanted > best()) throw std::invalid_argument("this processor does not have that instruction set");
    chosen().store(wanted, std::memory_order_relaxed);
}

}  // namespace imagen_fast
