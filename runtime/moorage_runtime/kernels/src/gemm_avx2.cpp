#include "gemm_avx2.h"

namespace moorage {

const Path kAvx2Path = {"avx2",        multiply_floats<float>, multiply_floats<uint16_t>,
                        multiply_bf16, multiply_quantised,     kAvx2Rows};

}  // namespace moorage
