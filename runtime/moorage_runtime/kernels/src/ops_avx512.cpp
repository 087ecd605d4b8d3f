#include "ops_sets.h"
#include "rows.inl"

namespace moorage {

const Ops kAvx512F32 = ops_named<F32Cache>("avx512");
const Ops kAvx512Bf16 = ops_named<Bf16Cache>("avx512");
const Ops kAvx512NativeBf16 = ops_named<NativeBf16Cache>("avx512_bf16");

}  // namespace moorage
