#include "cpu/exif.h"

#include <iterator>
#include <string_view>

namespace imagen_fast {

namespace {

using namespace std::string_view_literals;

constexpr std::string_view EXIF = "Exif\0\0"sv;
constexpr std::uint32_t ORIENTATION = 0x0112, X_RESOLUTION = 0x011a;
constexpr std::uint32_t SHORT = 3, RATIONAL = 5;
// Of a value of each type of TIFF 6.0; there is no type 0.
constexpr std::uint64_t BYTES_OF[] = {0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8};

// Numbers of a TIFF header, in its order of bytes; 0 beyond the end.
class Tiff {
public:
    Tiff(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {
        big_ = size >= 2 && data[0] == 'M';
    }
    bool valid() const {
        if (size_ < 8 || data_[0] != data_[1] || (data_[0] != 'M' && data_[0] != 'I')) return false;
        return number(2, 2) == 42;
    }
    bool has(std::size_t at, std::size_t bytes) const { return at <= size_ && bytes <= size_ - at; }
    std::uint32_t number(std::size_t at, std::size_t bytes) const {
        if (!has(at, bytes)) return 0;
        std::uint32_t value = 0;
        for (std::size_t i = 0; i < bytes; ++i) value = value << 8 | data_[at + (big_ ? i : bytes - 1 - i)];
        return value;
    }

private:
    const std::uint8_t* data_;
    std::size_t size_;
    bool big_;
};

bool begins(std::string_view text, std::string_view with) { return text.substr(0, with.size()) == with; }

// Pillow reads these segments, and refuses a file where one ends too early.
struct Known {
    int number;
    std::string_view name;
    std::size_t least;
};
constexpr Known KNOWN[] = {{0, "JFIF"sv, 7}, {2, "ICC_PROFILE\0"sv, 14}, {14, "Adobe"sv, 7}};

bool ends_early(int number, std::string_view text) {
    for (const Known& known : KNOWN)
        if (number == known.number && begins(text, known.name)) return text.size() < known.least;
    // After a resource's number, where its name should be.
    return number == 13 && begins(text, "Photoshop 3.0\0"sv) &&
           begins(text.substr(text.size() - 6), "8BIM"sv);
}

}  // namespace

void ExifOrientation::segment(int number, const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    unclear_ = unclear_ || ends_early(number, text);
    if (number != 1) return;
    if (!begins(text, EXIF)) {
        xmp_ = xmp_ || text.find("tiff:Orientation") != std::string_view::npos;
        return;
    }
    unclear_ = unclear_ || exif_;
    exif_ = true;
    const Tiff tiff(data + EXIF.size(), size - EXIF.size());
    const std::size_t directory = tiff.number(4, 4), count = tiff.number(directory, 2);
    if (!tiff.valid() || !tiff.has(directory + 2, 12 * count + 4)) {
        unclear_ = true;
        return;
    }
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t entry = directory + 2 + 12 * i;
        const std::uint32_t tag = tiff.number(entry, 2), type = tiff.number(entry + 2, 2);
        const std::uint64_t values = tiff.number(entry + 4, 4);
        const std::uint64_t bytes = type < std::size(BYTES_OF) ? BYTES_OF[type] * values : 0;
        const bool within = bytes <= 4 || tiff.has(tiff.number(entry + 8, 4), bytes);
        unclear_ = unclear_ || !bytes || !within;
        // Pillow asks for it, and fails at a text or at bytes.
        unclear_ = unclear_ || (tag == X_RESOLUTION && (type != RATIONAL || values != 1));
        if (tag != ORIENTATION) continue;
        const std::uint32_t value = tiff.number(entry + 8, 2);
        unclear_ = unclear_ || type != SHORT || values != 1 || found_;
        found_ = value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
    }
}

int ExifOrientation::value() const {
    if (unclear_) return 0;
    if (!found_) return xmp_ ? 0 : 1;
    return found_;
}

}  // namespace imagen_fast
