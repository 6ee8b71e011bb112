// nvJPEG, loaded at run time: a build needs none of it. Declared here is what is used; source: NVIDIA's
// documentation of nvJPEG 12.1 and later, whose interface has not changed since.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <string>

namespace imagen_fast {

class NvjpegLibrary {
public:
    // Of this path, once a process. Raises std::runtime_error with a reason: there is none, it lacks a
    // function, or it is too old to interpolate colours of half the resolution, as libjpeg does.
    static const NvjpegLibrary& at(const std::string& path);

    using Status = int;  // 0: success
    struct Handle;
    struct State;
    struct Stream;  // a parsed header
    // Interleaved pixels are in the first of them.
    struct Image {
        unsigned char* channel[4];
        std::size_t pitch[4];
    };
    static constexpr int BACKEND_DEFAULT = 0, BACKEND_HARDWARE = 3, OUTPUT_RGB_INTERLEAVED = 5;
    // What does not follow the standard is an error, so that libjpeg has the word on it.
    static constexpr unsigned FLAG_STRICT = 1u << 2, FLAG_INTERPOLATE = 1u << 5;

    Status (*get_property)(int which, int* value);
    Status (*create)(int backend, void* device_allocator, void* pinned_allocator, unsigned flags,
                     Handle** handle);
    Status (*destroy)(Handle* handle);
    Status (*create_state)(Handle* handle, State** state);
    Status (*destroy_state)(State* state);
    Status (*create_stream)(Handle* handle, Stream** stream);
    Status (*destroy_stream)(Stream* stream);
    Status (*parse_header)(Handle* handle, const unsigned char* data, std::size_t size, Stream* stream);
    // 0 in `unsupported` where the batches of this handle take such a file.
    Status (*batch_supports)(Handle* handle, Stream* stream, int* unsupported);
    Status (*begin_batch)(Handle* handle, State* state, int count, int threads, int format);
    Status (*decode_batch)(Handle* handle, State* state, const unsigned char* const* data,
                           const std::size_t* sizes, Image* images, cudaStream_t stream);
    Status (*decode)(Handle* handle, State* state, const unsigned char* data, std::size_t size, int format,
                     Image* image, cudaStream_t stream);

    static std::string words(Status status);

    // What goes with its owner.
    template <class T>
    using Owned = std::unique_ptr<T, Status (*)(T*)>;
    // Of a backend; null where it is not to be had, with the reason in `status`.
    Owned<Handle> handle(int backend, unsigned flags, Status& status) const;
    // They raise std::runtime_error with the reason.
    Owned<State> state(Handle* handle) const;
    Owned<Stream> stream(Handle* handle) const;
    static void check(Status status);

private:
    explicit NvjpegLibrary(const std::string& path);
};

}  // namespace imagen_fast
