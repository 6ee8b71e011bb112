// Work that threads of our own share out among themselves, one piece after another: for pieces that take
// unequally long. OpenMP's threads would stay behind in every thread that calls, and do not outlive a fork.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <vector>

namespace imagen_fast {

// Calls work(state, i) for i below `count`; a `state` is an empty pointer at first, and each thread's own.
// `work` must not throw. Where the system gives fewer threads than were asked for, those do it.
template <class State, class Work>
void share_out(std::int64_t count, int threads, Work work) {
    std::atomic<std::int64_t> next{0};
    const auto run = [&] {
        std::unique_ptr<State> state;
        for (std::int64_t i = next++; i < count; i = next++) work(state, i);
    };
    std::vector<std::thread> others;
    try {
        for (std::int64_t t = 1; t < threads && t < count; ++t) others.emplace_back(run);
    } catch (const std::exception&) {
    }
    run();
    for (std::thread& other : others) other.join();
}

}  // namespace imagen_fast
