#include "cpu/huffman.h"

#include <algorithm>
#include <cstring>

namespace imagen_fast {

bool HuffmanSearch::set(const HuffmanCode& code, bool& same) {
    int total = 0;
    for (int i = 0; i < 16; ++i) total += code.counts[i];
    if (total > 256) return false;
    same = is_set_ && !std::memcmp(counts_, code.counts, 16) &&
           !std::memcmp(symbols_, code.symbols, static_cast<std::size_t>(total));
    if (same) return true;

    is_set_ = false;
    std::memcpy(counts_, code.counts, 16);
    std::memcpy(symbols_, code.symbols, static_cast<std::size_t>(total));
    std::uint32_t next = 0, seen = 0;
    for (int length = 1; length <= 16; ++length) {
        const std::uint32_t count = counts_[length - 1];
        offset_[length] = seen - next;
        next += count;
        seen += count;
        // T.81, annex C: no code is all ones.
        if (count && next >= 1u << length) return false;
        limit_[length] = next << (16 - length);
        next <<= 1;
    }
    return is_set_ = true;
}

bool DcTable::set(const HuffmanCode& code) {
    bool same;
    if (!search.set(code, same)) return false;
    int total = 0;
    for (int i = 0; i < 16; ++i) total += code.counts[i];
    if (std::any_of(code.symbols, code.symbols + total, [](std::uint8_t size) { return size > 15; }))
        return false;
    if (same) return true;
    for (std::uint32_t i = 0; i < 1u << BITS; ++i) {
        const HuffmanSearch::Found found = search.find(i << (16 - BITS));
        const bool whole = found.length > 0 && found.length <= BITS;
        look[i] = whole ? static_cast<std::uint16_t>(found.length | found.symbol << 8) : 0;
    }
    return true;
}

bool AcTable::set(const HuffmanCode& code) {
    bool same;
    if (!search.set(code, same)) return false;
    if (same) return true;

    // First every symbol alone: its entries lie side by side, and so do those of each value.
    constexpr std::uint32_t entries = 1u << BITS;
    std::fill(look, look + entries, 0);
    const std::uint8_t* symbol = code.symbols;
    std::uint32_t at = 0;
    for (int length = 1; length <= BITS; ++length)
        for (int i = 0; i < code.counts[length - 1]; ++i, ++symbol) {
            const std::uint64_t part = part_of_symbol(length, *symbol);
            const int size = *symbol & 15;
            const std::uint32_t reach = entries >> length;
            if (length + size > BITS) {
                std::fill(look + at, look + at + reach, part);
                at += reach;
                continue;
            }
            const std::uint64_t move = part >> 8 & 255, bits = static_cast<std::uint64_t>(length + size);
            const std::uint64_t whole = bits | move << 8 | move << 16 | bits << 24;
            for (std::int32_t raw = 0; raw < 1 << size; ++raw) {
                // T.81, F.2.2.1: the lower half of what `size` bits can say is negative.
                const std::int32_t value = size && raw < 1 << (size - 1) ? raw - (1 << size) + 1 : raw;
                const std::uint64_t bits16 = static_cast<std::uint16_t>(value);
                const std::uint32_t same_value = reach >> size;
                std::fill(look + at, look + at + same_value, whole | bits16 << 32 | bits16 << 48);
                at += same_value;
            }
        }

    // Then what is left of the window may hold another one.
    std::uint64_t alone[entries];
    std::copy(look, look + entries, alone);
    for (std::uint32_t i = 0; i < entries; ++i) {
        const std::uint64_t first = alone[i];
        const std::uint64_t move = first >> 8 & 255, bits = first & 255;
        if (!(first >> 16 & 255) || move >= END_OF_BLOCK) continue;
        const std::uint64_t second = alone[i << bits & (entries - 1)];
        if (!(second >> 16 & 255) || bits + (second & 255) > BITS) continue;
        look[i] = (bits + (second & 255)) | move << 8 | (move + (second >> 8 & 255)) << 16 | bits << 24 |
                  (first & 0xffff00000000u) | second >> 48 << 48;
    }
    return true;
}

}  // namespace imagen_fast
