// Compiled once per instruction set; see instruction_set.h.
#include "cpu/baseline_kernels.h"

#if defined(__AVX2__)
#include <array>
#include <cstring>

#include "cpu/inverse_cosine.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

namespace {

// At least 56 bits are there afterwards. Without a branch: a byte that is read twice has the same bits both
// times.
inline void refill(std::uint64_t& window, unsigned& valid, const std::uint8_t*& next) {
    std::uint64_t coming;
    std::memcpy(&coming, next, sizeof coming);
    window |= __builtin_bswap64(coming) >> valid;
    next += (63 - valid) >> 3;
    valid |= 56;
}

// T.81, F.2.2.1: `size` bits after the first `skipped` ones; a number that begins with a 0 is negative.
inline std::int32_t value_of(std::uint64_t window, unsigned skipped, unsigned size) {
    const std::uint64_t bits = window << skipped;
    const std::int64_t negative = static_cast<std::int64_t>(~bits) >> 63;
    return static_cast<std::int32_t>(bits >> 1 >> (63 - size)) -
           static_cast<std::int32_t>(negative & ((1 << size) - 1));
}

// Where a coefficient goes by its number in the order of coding. All that a broken file can make of a number
// goes to a place that nothing reads.
constexpr int NOWHERE = 64, MOST_NUMBER = 63 + END_OF_BLOCK + 17;
constexpr std::array<std::uint8_t, MOST_NUMBER> places() {
    std::array<std::uint8_t, MOST_NUMBER> found{};
    for (int i = 0; i < MOST_NUMBER; ++i)
        found[static_cast<std::size_t>(i)] =
            static_cast<std::uint8_t>(i < 64 ? coefficient_place(ZIGZAG[i] / 8, ZIGZAG[i] % 8) : NOWHERE);
    return found;
}
constexpr auto PLACES = places();

struct alignas(64) Block {
    std::int16_t coefficients[NOWHERE + 1];

    void clear() {
        for (int i = 0; i < 64; i += 16)
            _mm256_store_si256(reinterpret_cast<__m256i*>(coefficients + i), _mm256_setzero_si256());
    }
};

inline bool dc_difference(CodeReader& code, const DcTable& table, std::int32_t& difference) {
    refill(code.window, code.valid, code.next);
    unsigned length, size;
    if (const unsigned found = table.look[code.window >> (64 - DcTable::BITS)]) {
        length = found & 255;
        size = found >> 8;
    } else {
        const HuffmanSearch::Found slow = table.search.find(static_cast<std::uint32_t>(code.window >> 48));
        if (!slow.length) return false;
        length = static_cast<unsigned>(slow.length);
        size = static_cast<unsigned>(slow.symbol);
    }
    difference = value_of(code.window, length, size);
    code.window <<= length + size;
    code.valid -= length + size;
    return true;
}

// The number of the last coefficient other than 0 (or of one shortly before it that a code skipped to), at
// least END_OF_BLOCK where the file ends the block itself; -1: broken.
//
// A function of its own, so that all it needs stays in registers.
template <bool keep>
__attribute__((noinline)) int ac_coefficients(CodeReader& code, const AcTable& table, std::int16_t* block) {
    std::uint64_t window = code.window;
    unsigned valid = code.valid;
    const std::uint8_t* next = code.next;
    unsigned number = 0, first;
    std::uint64_t entry;
    for (;;) {
        refill(window, valid, next);
        // Five looks have at most 55 bits.
#pragma GCC unroll 5
        for (int i = 0; i < 5; ++i) {
            entry = table.look[window >> (64 - AcTable::BITS)];
            if (__builtin_expect(!(entry & 0xff0000), 0)) goto only_a_part;
            first = number + (entry >> 8 & 255);
            number += entry >> 16 & 255;
            if (keep) {
                // Where there is but one, it is written twice.
                block[PLACES[first]] = static_cast<std::int16_t>(entry >> 32);
                block[PLACES[number]] = static_cast<std::int16_t>(entry >> 48);
            }
            window <<= entry & 63;
            valid -= entry & 63;
            if (number > 62) goto over;
        }
        continue;

    only_a_part:
        refill(window, valid, next);
        if (!entry) {
            const HuffmanSearch::Found found = table.search.find(static_cast<std::uint32_t>(window >> 48));
            if (!found.length) return -1;
            entry = part_of_symbol(found.length, found.symbol);
        }
        first = number += entry >> 8 & 255;
        const unsigned size = entry >> 24 & 255, bits = entry & 255;
        if (keep) block[PLACES[number]] = static_cast<std::int16_t>(value_of(window, bits - size, size));
        window <<= bits;
        valid -= bits;
        if (number > 62) break;
    }

over:
    // The first of two symbols filled the block: the second is none of its, and there is no bit of it left in
    // the window.
    if (__builtin_expect(first != number && first > 62, 0)) {
        const unsigned back = static_cast<unsigned>((entry & 255) - (entry >> 24 & 255));
        const std::uint8_t* at = next - ((valid + back + 7) >> 3);
        const unsigned taken = (0 - (valid + back)) & 7;
        std::memcpy(&window, at, sizeof window);
        window = __builtin_bswap64(window) << taken;
        next = at + 7;
        valid = 56 - taken;
        number = first;
    }
    code.window = window;
    code.valid = valid;
    code.next = next;
    // A run past the last coefficient.
    return number == 63 || number >= END_OF_BLOCK ? static_cast<int>(number) : -1;
}

inline bool put_block(const Block& block, const McuComponent& component, bool flat, std::uint8_t* pixels) {
    const std::int64_t pitch = component.pitch;
    if (flat) {
        const auto first = static_cast<std::int16_t>(block.coefficients[0] * component.quantisation[0]);
        return fill(first, component.side, pixels, pitch);
    }
    if (component.side == 8)
        return inverse_transform<8>(block.coefficients, component.quantisation, pixels, pitch);
    if (component.side == 4)
        return inverse_transform<4>(block.coefficients, component.quantisation, pixels, pitch);
    return inverse_transform<2>(block.coefficients, component.quantisation, pixels, pitch);
}

inline bool next_first(CodeReader& code, const McuComponent& component, std::int32_t& last) {
    std::int32_t difference;
    if (!dc_difference(code, *component.dc, difference)) return false;
    last += difference;
    return last == static_cast<std::int16_t>(last);
}

}  // namespace

bool decode_mcus(CodeReader& code, const McuLayout& layout, std::int32_t* last, std::int64_t count,
                 std::uint8_t* const* planes) {
    Block block;
    for (std::int64_t m = 0; m < count; ++m) {
        for (int b = 0; b < layout.blocks; ++b) {
            const int c = layout.block[b].component;
            const McuComponent& component = layout.component[c];
            if (!next_first(code, component, last[c])) return false;
            // One pixel a block is its first coefficient's.
            const bool look = planes && component.side > 1;
            if (look) block.clear();
            block.coefficients[0] = static_cast<std::int16_t>(last[c]);
            const int number = look ? ac_coefficients<true>(code, *component.ac, block.coefficients)
                                    : ac_coefficients<false>(code, *component.ac, nullptr);
            if (number < 0) return false;
            if (planes && !put_block(block, component, !look || number == END_OF_BLOCK,
                                     planes[c] + m * component.step + layout.block[b].offset))
                return false;
        }
        if (code.overrun()) return false;
    }
    return true;
}

bool decode_coefficients(CodeReader& code, const McuLayout& layout, std::int32_t* last, std::int64_t count,
                         std::int16_t* out) {
    Block block;
    for (std::int64_t m = 0; m < count; ++m) {
        for (int b = 0; b < layout.blocks; ++b, out += 64) {
            const int c = layout.block[b].component;
            const McuComponent& component = layout.component[c];
            if (!next_first(code, component, last[c])) return false;
            block.clear();
            block.coefficients[0] = static_cast<std::int16_t>(last[c]);
            if (ac_coefficients<true>(code, *component.ac, block.coefficients) < 0) return false;
            std::memcpy(out, block.coefficients, 64 * sizeof *out);
        }
        if (code.overrun()) return false;
    }
    return true;
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET

#endif
