// One wheel for every processor: each kernel file is compiled once per instruction set, into a namespace
// of that name, and the call picks the best one that this processor has.
#pragma once

namespace imagen_fast {

enum class InstructionSet { portable, avx2, avx512 };

// The best that this processor has, unless a test or a benchmark has asked for a lesser one.
InstructionSet instruction_set();

// Raises std::invalid_argument where the processor lacks it.
void use_instruction_set(InstructionSet wanted);

}  // namespace imagen_fast

#if defined(IMAGEN_FAST_X86)
#define IMAGEN_FAST_FOR_EACH_INSTRUCTION_SET(DECLARE) DECLARE(portable) DECLARE(avx2) DECLARE(avx512)
#define IMAGEN_FAST_BEST(kernel)                                                            \
    (imagen_fast::instruction_set() == imagen_fast::InstructionSet::avx512 ? avx512::kernel \
     : imagen_fast::instruction_set() == imagen_fast::InstructionSet::avx2 ? avx2::kernel   \
                                                                           : portable::kernel)
#else
#define IMAGEN_FAST_FOR_EACH_INSTRUCTION_SET(DECLARE) DECLARE(portable)
#define IMAGEN_FAST_BEST(kernel) (portable::kernel)
#endif
