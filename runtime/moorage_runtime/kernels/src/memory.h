// Memory from the kernel: zeros that take no room until they are written, aligned to pages.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <utility>

namespace moorage {

constexpr size_t kHugePage = size_t{2} << 20;

template <class T>
class Pages {
   public:
    Pages() = default;
    explicit Pages(size_t count) : bytes_(count * sizeof(T)) {
        if (count == 0) return;
        void* mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapped == MAP_FAILED) throw std::bad_alloc();
        // Attention reads a page here and a page there: fewer and larger ones are found sooner. Only a wish.
        if (bytes_ >= kHugePage) madvise(mapped, bytes_, MADV_HUGEPAGE);
        data_ = static_cast<T*>(mapped);
    }
    Pages(Pages&& other) noexcept { *this = std::move(other); }
    Pages& operator=(Pages&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~Pages() {
        if (data_ != nullptr) munmap(data_, bytes_);
    }

    T* get() const { return data_; }

   private:
    T* data_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace moorage
