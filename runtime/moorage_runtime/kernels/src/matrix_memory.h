// Memory of packed matrices: zeroed, aligned to 64 bytes, on huge pages where the system has them. One row's product
// reads every weight once; small pages cost it a quarter of the memory's speed (measured 12-13 against 16-17 GB/s a
// core).
#pragma once

#include <cstddef>
#include <cstdint>

namespace moorage {

// nullptr: no memory. Any thread.
uint8_t* memory_take(size_t bytes);
// Gives back what memory_take gave.
void memory_give(uint8_t* memory);

}  // namespace moorage
