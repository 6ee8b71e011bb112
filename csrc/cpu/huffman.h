// Huffman codes of a baseline JPEG as tables that a window of coming bits is looked up in.
//
// Source: ITU-T T.81, annexes C and F.2.2. That two symbols come out of one look is ours: nearly all the time
// of a look is waiting for the table, and at usual qualities two symbols have about twelve bits.
#pragma once

#include <cstdint>

namespace imagen_fast {

// The code as the file has it: how many codes there are of each length, 1 to 16, and their symbols.
struct HuffmanCode {
    const std::uint8_t* counts;   // [16]
    const std::uint8_t* symbols;  // [256], of which the counts say how many are used
};

// One code at a time, of any length.
class HuffmanSearch {
public:
    // False where the counts are of no code. Does nothing where it is the code that is there.
    bool set(const HuffmanCode& code, bool& same);

    // The code that these 16 bits begin with; its length is 0 where none does.
    struct Found {
        int length, symbol;
    };
    Found find(std::uint32_t bits) const {
        for (int length = 1; length <= 16; ++length)
            if (bits < limit_[length])
                return {length, symbols_[((bits >> (16 - length)) + offset_[length]) & 255]};
        return {0, 0};
    }

private:
    std::uint8_t counts_[16] = {}, symbols_[256] = {};
    std::uint32_t limit_[17] = {};  // of the codes up to this length, as the first of 16 bits
    std::uint32_t offset_[17] = {};
    bool is_set_ = false;
};

// The differences of the first coefficients.
struct DcTable {
    static constexpr int BITS = 9;

    bool set(const HuffmanCode& code);

    HuffmanSearch search;
    // length | size << 8; 0: a longer code
    std::uint16_t look[1 << BITS];
};

// How far a symbol moves on among the 64 coefficients; one that ends the block moves past all that a run can.
constexpr int END_OF_BLOCK = 128;

// All other coefficients. An entry has, from the lowest byte up:
//   how many bits it takes in all, how far the first symbol moves on, how far all of them do,
//   how many bits the first one takes, and the two values, 16 bits each.
// With one symbol the second is as the first. Where the value's bits do not fit into the window, the third
// byte is 0 and the fourth the value's size; where the code does not, all is 0.
struct AcTable {
    static constexpr int BITS = 11;

    bool set(const HuffmanCode& code);

    HuffmanSearch search;
    std::uint64_t look[1 << BITS];
};

// The entry of AcTable for a symbol of which only the code is looked up.
inline std::uint64_t part_of_symbol(int length, int symbol) {
    const int size = symbol & 15;
    const int move = size || symbol == 0xf0 ? (symbol >> 4) + 1 : END_OF_BLOCK;
    return static_cast<std::uint64_t>(length + size) | static_cast<std::uint64_t>(move) << 8 |
           static_cast<std::uint64_t>(size) << 24;
}

}  // namespace imagen_fast
