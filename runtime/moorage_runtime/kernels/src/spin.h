// How a thread waits that does not sleep yet.
#pragma once

#include <chrono>
#include <cstdint>

namespace moorage {

inline void pause_processor() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Spins until `ready()` or until the time is over; whether it became ready.
template <class Ready>
bool spin(int64_t nanoseconds, const Ready& ready) {
    constexpr int kPausesBetweenClocks = 16;
    if (nanoseconds <= 0) return ready();
    const auto end = std::chrono::steady_clock::now() + std::chrono::nanoseconds(nanoseconds);
    do {
        for (int i = 0; i < kPausesBetweenClocks; ++i) {
            if (ready()) return true;
            pause_processor();
        }
    } while (std::chrono::steady_clock::now() < end);
    return ready();
}

}  // namespace moorage
