// Ranks of one machine: the slots are memory that all of them map, so nothing is copied.
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <system_error>

#include "group.h"
#include "spin.h"

namespace moorage {
namespace {

constexpr size_t kPage = 4096;
constexpr timespec kLook = {0, 20'000'000};  // between two looks after the others

// How far a rank has come. Each has a cache line of its own.
struct alignas(64) Mark {
    std::atomic<uint32_t> turn;
    std::atomic<uint32_t> sleepers;
};
static_assert(std::atomic<uint32_t>::is_always_lock_free, "other processes see it");

class MemoryGroup final : public Group {
   public:
    explicit MemoryGroup(const GroupOptions& options)
        : Group(options),
          marks_size_((sizeof(Mark) * static_cast<size_t>(ranks_) + kPage - 1) / kPage * kPage),
          size_(marks_size_ + slots_size() * sizeof(float)) {
        // Grown by whoever is first; pages take no memory before they are written.
        if (ftruncate(options.memory, static_cast<off_t>(size_)) != 0) fail("the ranks' shared memory cannot be sized");
        base_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, options.memory, 0);
        if (base_ == MAP_FAILED) fail("the ranks' shared memory cannot be mapped");
    }
    ~MemoryGroup() override { munmap(base_, size_); }

   private:
    float* slots() const override { return reinterpret_cast<float*>(static_cast<char*>(base_) + marks_size_); }

    // For rank 0 alone it is the same: to nobody's slot may be written while it is still read.
    const char* transfer(size_t, bool) override {
        const auto turn = static_cast<uint32_t>(turn_ + 1);
        Mark& own = mark(rank_);
        // Sequentially consistent, as the others' side is: either they see the turn before they sleep, or we see them.
        own.turn.store(turn);
        if (own.sleepers.load() > 0) syscall(SYS_futex, &own.turn, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
        for (int rank = 0; rank < ranks_; ++rank)
            if (rank != rank_ && !wait_for(rank, turn)) return watch_.problem();
        return nullptr;
    }

    bool wait_for(int rank, uint32_t turn) {
        Mark& other = mark(rank);
        // A rank is at most one turn ahead; the difference is right where the counter overflows, too.
        const auto come = [&] { return static_cast<int32_t>(other.turn.load() - turn) >= 0; };
        if (spin(spin_ns_, come)) return true;
        other.sleepers.fetch_add(1);
        bool patient = true;
        while (patient) {
            const uint32_t seen = other.turn.load();
            if (static_cast<int32_t>(seen - turn) >= 0) break;
            syscall(SYS_futex, &other.turn, FUTEX_WAIT, seen, &kLook, nullptr, 0);
            patient = come() || watch_.patient(rank);
        }
        other.sleepers.fetch_sub(1);
        return patient;
    }

    Mark& mark(int rank) const { return static_cast<Mark*>(base_)[rank]; }

    [[noreturn]] static void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

    const size_t marks_size_, size_;
    void* base_ = nullptr;
};

}  // namespace

std::unique_ptr<Group> group_over_memory(const GroupOptions& options) { return std::make_unique<MemoryGroup>(options); }

}  // namespace moorage
