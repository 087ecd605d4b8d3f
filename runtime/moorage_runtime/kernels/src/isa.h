// What this machine can execute, asked once.
#pragma once

namespace moorage {

struct Features {
    bool avx2;      // with FMA and F16C
    bool avx_vnni;  // VEX-encoded dot products of bytes
    bool avx512;    // F, BW, VL, DQ and VNNI
    bool avx512_bf16;
    bool amx;   // tiles, int8 and bf16, and the kernel let this process use them
    bool neon;  // with dot products of bytes
};

const Features& features();

}  // namespace moorage
