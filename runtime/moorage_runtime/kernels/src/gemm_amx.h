// The parts of the AMX path.
#pragma once

#include "gemm_paths.h"

namespace moorage {

void multiply_bf16_tiles(const Product& product);

}  // namespace moorage
