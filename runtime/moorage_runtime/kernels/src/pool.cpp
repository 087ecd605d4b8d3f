#include "pool.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>

#include "spin.h"

namespace moorage {
namespace {

void futex_wait(std::atomic<uint32_t>& word, uint32_t seen) {
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}

void futex_wake(std::atomic<uint32_t>& word) {
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

bool any_left(uint64_t ticket) { return static_cast<uint32_t>(ticket) < static_cast<uint32_t>(ticket >> 32); }

}  // namespace

Pool::Pool(int threads, int64_t spin_ns) : spin_ns_(spin_ns) {
    for (int thread = 1; thread < threads; ++thread) helpers_.emplace_back([this, thread] { help(thread); });
}

Pool::~Pool() {
    stopping_ = true;
    phase_.fetch_add(1);
    futex_wake(phase_);
    for (std::thread& helper : helpers_) helper.join();
}

void Pool::publish(int tasks, Function function, const void* context) {
    function_ = function;
    context_ = context;
    left_.store(static_cast<uint32_t>(tasks), std::memory_order_relaxed);
    ticket_.store(static_cast<uint64_t>(tasks) << 32, std::memory_order_release);
    // Sequentially consistent, as the helpers' side is: either they see this phase before they sleep, or we see them.
    phase_.fetch_add(1);
    if (sleepers_.load() > 0) futex_wake(phase_);
    while (take(0)) {
    }
    wait_until_done();
}

bool Pool::take(int thread) {
    if (!any_left(ticket_.load(std::memory_order_relaxed))) return false;
    const uint64_t ticket = ticket_.fetch_add(1, std::memory_order_acquire);
    if (!any_left(ticket)) return false;
    function_(context_, static_cast<int>(static_cast<uint32_t>(ticket)), thread);
    if (left_.fetch_sub(1) == 1 && caller_sleeps_.load() > 0) futex_wake(left_);
    return true;
}

void Pool::wait_until_done() {
    const auto done = [this] { return left_.load(std::memory_order_acquire) == 0; };
    if (spin(spin_ns_, done)) return;
    caller_sleeps_ = 1;
    for (uint32_t left = left_.load(); left != 0; left = left_.load()) futex_wait(left_, left);
    caller_sleeps_ = 0;
}

void Pool::help(int thread) {
    while (!stopping_.load()) {
        if (!take(thread)) wait_for_phase();
    }
}

void Pool::wait_for_phase() {
    const uint32_t phase = phase_.load();
    const auto moved = [this] { return any_left(ticket_.load(std::memory_order_relaxed)) || stopping_.load(); };
    if (spin(spin_ns_, moved)) return;
    sleepers_.fetch_add(1);
    // A phase that was published since `phase` was read has changed the word, and then this returns at once.
    futex_wait(phase_, phase);
    sleepers_.fetch_sub(1);
}

}  // namespace moorage
