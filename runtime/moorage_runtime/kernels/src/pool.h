// The threads of one engine: every step is a sequence of phases, every phase a number of tasks that any thread takes.
//
// A phase ends when its tasks are done, not when all threads have come by: a helper that the kernel has put aside holds
// up no more than the one task that it had taken. Whoever waits spins for some microseconds and then sleeps on a futex,
// so engines that share their processors do not keep one another from running.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace moorage {

class Pool {
   public:
    // `threads` compute together, the calling one among them. A waiting one spins for `spin_ns` before it sleeps.
    Pool(int threads, int64_t spin_ns);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return static_cast<int>(helpers_.size()) + 1; }

    // Calls task(index, thread) for every index below `tasks`, and returns when all are done.
    template <class Task>
    void run(int tasks, const Task& task) {
        if (tasks <= 1 || helpers_.empty()) {
            for (int index = 0; index < tasks; ++index) task(index, 0);
            return;
        }
        publish(tasks, [](const void* context, int index, int thread) {
            (*static_cast<const Task*>(context))(index, thread);
        }, &task);
    }

   private:
    using Function = void (*)(const void* context, int index, int thread);

    void publish(int tasks, Function function, const void* context);
    bool take(int thread);
    void help(int thread);
    void wait_until_done();
    void wait_for_phase();

    // Tasks of the phase (high half) and the next one to take (low half), in one word: whoever gets an index below the
    // number holds up the phase, so function and context are still those of this phase when it reads them.
    alignas(64) std::atomic<uint64_t> ticket_{0};
    alignas(64) std::atomic<uint32_t> left_{0};
    std::atomic<uint32_t> caller_sleeps_{0};
    alignas(64) std::atomic<uint32_t> phase_{0};
    std::atomic<uint32_t> sleepers_{0};
    std::atomic<bool> stopping_{false};
    alignas(64) Function function_ = nullptr;
    const void* context_ = nullptr;
    const int64_t spin_ns_;
    std::vector<std::thread> helpers_;
};

}  // namespace moorage
