#include "cuda/nvjpeg_library.h"

#include <dlfcn.h>

#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>

namespace imagen_fast {

namespace {

template <class Function>
void find(void* library, const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    if (!function) throw std::runtime_error(std::string("nvJPEG has no ") + name);
}

}  // namespace

NvjpegLibrary::NvjpegLibrary(const std::string& path) {
    // Never closed: what it keeps in other libraries would outlive it.
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) throw std::runtime_error(std::string("nvJPEG does not load: ") + dlerror());
    find(library, "nvjpegGetProperty", get_property);
    find(library, "nvjpegCreateEx", create);
    find(library, "nvjpegDestroy", destroy);
    find(library, "nvjpegJpegStateCreate", create_state);
    find(library, "nvjpegJpegStateDestroy", destroy_state);
    find(library, "nvjpegJpegStreamCreate", create_stream);
    find(library, "nvjpegJpegStreamDestroy", destroy_stream);
    find(library, "nvjpegJpegStreamParseHeader", parse_header);
    find(library, "nvjpegDecodeBatchedSupported", batch_supports);
    find(library, "nvjpegDecodeBatchedInitialize", begin_batch);
    find(library, "nvjpegDecodeBatched", decode_batch);
    find(library, "nvjpegDecode", decode);
    int major = 0, minor = 0;
    if (get_property(0, &major) || get_property(1, &minor) || major < 12 || (major == 12 && minor < 1))
        throw std::runtime_error("nvJPEG must be 12.1 or newer, not " + std::to_string(major) + "." +
                                 std::to_string(minor));
}

const NvjpegLibrary& NvjpegLibrary::at(const std::string& path) {
    static std::mutex mutex;
    static auto& loaded = *new std::map<std::string, std::unique_ptr<const NvjpegLibrary>>;
    const std::lock_guard<std::mutex> lock(mutex);
    std::unique_ptr<const NvjpegLibrary>& library = loaded[path];
    if (!library) library.reset(new NvjpegLibrary(path));
    return *library;
}

std::string NvjpegLibrary::words(Status status) {
    static const char* const all[] = {"success",
                                      "not initialised",
                                      "a parameter is not valid",
                                      "the JPEG is broken",
                                      "the JPEG is of a kind that is not supported",
                                      "no memory",
                                      "the execution failed",
                                      "the chip is not supported",
                                      "an internal error",
                                      "not implemented",
                                      "the JPEG is incomplete"};
    const bool known = status >= 0 && status < static_cast<int>(std::size(all));
    return "nvJPEG: " + (known ? all[status] : "status " + std::to_string(status));
}

void NvjpegLibrary::check(Status status) {
    if (status) throw std::runtime_error(words(status));
}

NvjpegLibrary::Owned<NvjpegLibrary::Handle> NvjpegLibrary::handle(int backend, unsigned flags,
                                                                  Status& status) const {
    Handle* made = nullptr;
    status = create(backend, nullptr, nullptr, flags, &made);
    return {status ? nullptr : made, destroy};
}

NvjpegLibrary::Owned<NvjpegLibrary::State> NvjpegLibrary::state(Handle* handle) const {
    State* made = nullptr;
    check(create_state(handle, &made));
    return {made, destroy_state};
}

NvjpegLibrary::Owned<NvjpegLibrary::Stream> NvjpegLibrary::stream(Handle* handle) const {
    Stream* made = nullptr;
    check(create_stream(handle, &made));
    return {made, destroy_stream};
}

}  // namespace imagen_fast
