#include "gemm_paths.h"
#include "operand_rows.h"

namespace moorage {

const RowPreparations kAvx2Rows = {prepare_f32, prepare_bf16, prepare_i8};

}  // namespace moorage
