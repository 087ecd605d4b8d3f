#include "matrix_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>

namespace moorage {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;
// Matrices are cut from regions of this size, because many are smaller than a huge page.
constexpr size_t kRegion = size_t{32} << 20;
constexpr size_t kLine = 64;

struct Region {
    uint8_t* mapped;
    size_t mapped_bytes;
    size_t end, used;  // offsets from the first huge page
    int taken;         // pieces not given back
};

size_t up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

// Regions by their first huge page's address, and the one that new pieces are cut from. A region goes when all its
// pieces have.
class Regions {
public:
    uint8_t* take(size_t bytes) {
        const std::scoped_lock lock(mutex_);
        const size_t size = up(std::max<size_t>(bytes, 1), kLine);
        auto region = regions_.find(open_);
        if (region == regions_.end() || region->second.end - region->second.used < size) region = map(size);
        if (region == regions_.end()) return nullptr;
        uint8_t* piece = region->first + region->second.used;
        region->second.used += size;
        ++region->second.taken;
        return piece;
    }

    void give(const uint8_t* piece) {
        const std::scoped_lock lock(mutex_);
        const auto region = std::prev(
            std::find_if(regions_.begin(), regions_.end(), [&](const auto& each) { return each.first > piece; }));
        if (--region->second.taken > 0) return;
        munmap(region->second.mapped, region->second.mapped_bytes);
        regions_.erase(region);
    }

private:
    using Map = std::map<uint8_t*, Region>;

    Map::iterator map(size_t bytes) {
        const size_t end = std::max(kRegion, up(bytes, kHugePage));
        const size_t mapped_bytes = end + kHugePage;
        void* mapped = mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped == MAP_FAILED) return regions_.end();
        auto* first = reinterpret_cast<uint8_t*>(up(reinterpret_cast<uintptr_t>(mapped), kHugePage));
        madvise(first, end, MADV_HUGEPAGE);  // a wish: small pages do as well, slower
        open_ = first;
        return regions_.emplace(first, Region{static_cast<uint8_t*>(mapped), mapped_bytes, end, 0, 0}).first;
    }

    std::mutex mutex_;
    Map regions_;
    uint8_t* open_ = nullptr;
};

// Never destroyed: matrices may outlive static objects at the process's end.
Regions& regions() {
    static auto& all = *new Regions;
    return all;
}

}  // namespace

uint8_t* memory_take(size_t bytes) { return regions().take(bytes); }

void memory_give(uint8_t* memory) { regions().give(memory); }

}  // namespace moorage
