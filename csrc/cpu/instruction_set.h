// One wheel for every processor: each kernel file is compiled once per instruction set, into a namespace
// of that name, and the call picks the best one that this processor has.
#pragma once

namespace imagen_fast {

// Each includes those before it. `avx512_bf16` is for the kernels that have products of bfloat16 in them, or
// roundings to it; the others take `avx512` there.
enum class InstructionSet { portable, avx2, avx512, avx512_bf16 };

// The best that this processor has, unless a test or a benchmark has asked for a lesser one.
InstructionSet instruction_set();

// Raises std::invalid_argument where the processor lacks it.
void use_instruction_set(InstructionSet wanted);

}  // namespace imagen_fast

#if defined(IMAGEN_FAST_X86)
// Some kernels there are only for vectors, and something else does the work on other processors.
#define IMAGEN_FAST_FOR_EACH_VECTOR_INSTRUCTION_SET(DECLARE) DECLARE(avx2) DECLARE(avx512)
#define IMAGEN_FAST_BEST_VECTOR(kernel) \
    (imagen_fast::instruction_set() >= imagen_fast::InstructionSet::avx512 ? avx512::kernel : avx2::kernel)
#define IMAGEN_FAST_FOR_EACH_INSTRUCTION_SET(DECLARE) \
    DECLARE(portable) IMAGEN_FAST_FOR_EACH_VECTOR_INSTRUCTION_SET(DECLARE)
#define IMAGEN_FAST_BEST(kernel)                                                                           \
    (imagen_fast::instruction_set() >= imagen_fast::InstructionSet::avx2 ? IMAGEN_FAST_BEST_VECTOR(kernel) \
                                                                         : portable::kernel)
#else
#define IMAGEN_FAST_FOR_EACH_VECTOR_INSTRUCTION_SET(DECLARE)
#define IMAGEN_FAST_FOR_EACH_INSTRUCTION_SET(DECLARE) DECLARE(portable)
#define IMAGEN_FAST_BEST(kernel) (portable::kernel)
#endif

#if defined(IMAGEN_FAST_AVX512_BF16)
#define IMAGEN_FAST_FOR_EACH_BF16_INSTRUCTION_SET(DECLARE) \
    IMAGEN_FAST_FOR_EACH_INSTRUCTION_SET(DECLARE) DECLARE(avx512_bf16)
#define IMAGEN_FAST_BEST_BF16(kernel)                                                                 \
    (imagen_fast::instruction_set() == imagen_fast::InstructionSet::avx512_bf16 ? avx512_bf16::kernel \
                                                                                : IMAGEN_FAST_BEST(kernel))
#else
#define IMAGEN_FAST_FOR_EACH_BF16_INSTRUCTION_SET IMAGEN_FAST_FOR_EACH_INSTRUCTION_SET
#define IMAGEN_FAST_BEST_BF16 IMAGEN_FAST_BEST
#endif
