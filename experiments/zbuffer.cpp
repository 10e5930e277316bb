// A plain z-buffer, to be compared with: g++ -O3 -march=native -shared -fPIC zbuffer.cpp -o zbuffer.so
// Same rules as ganfit_jax/raster.py: pixel centres, both orientations, 1/z linear on the screen, ids of the winners.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

extern "C" void zbuffer(const float* screen, const int32_t* faces, int count, int size, int32_t* ids) {
    std::vector<float> best(static_cast<size_t>(size) * size, 0.0f);
    std::fill(ids, ids + static_cast<size_t>(size) * size, -1);
    for (int face = 0; face < count; ++face) {
        const float* a = screen + 3 * faces[3 * face];
        const float* b = screen + 3 * faces[3 * face + 1];
        const float* c = screen + 3 * faces[3 * face + 2];
        if (std::min({a[2], b[2], c[2]}) <= 1.0f) continue;
        const int left = std::max(0, static_cast<int>(std::ceil(std::min({a[0], b[0], c[0]}) - 0.5f)));
        const int right = std::min(size - 1, static_cast<int>(std::floor(std::max({a[0], b[0], c[0]}) - 0.5f)));
        const int top = std::max(0, static_cast<int>(std::ceil(std::min({a[1], b[1], c[1]}) - 0.5f)));
        const int bottom = std::min(size - 1, static_cast<int>(std::floor(std::max({a[1], b[1], c[1]}) - 0.5f)));
        if (left > right || top > bottom) continue;
        const float area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
        if (area == 0.0f) continue;
        const float scale = 1.0f / area, za = 1.0f / a[2], zb = 1.0f / b[2], zc = 1.0f / c[2];
        const float step_a = -(c[1] - b[1]) * scale, step_b = -(a[1] - c[1]) * scale, step_c = -(b[1] - a[1]) * scale;
        for (int row = top; row <= bottom; ++row) {
            const float x = left + 0.5f, y = row + 0.5f;
            float wa = ((c[0] - b[0]) * (y - b[1]) - (c[1] - b[1]) * (x - b[0])) * scale;
            float wb = ((a[0] - c[0]) * (y - c[1]) - (a[1] - c[1]) * (x - c[0])) * scale;
            float wc = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) * scale;
            for (int column = left; column <= right; ++column, wa += step_a, wb += step_b, wc += step_c) {
                if (wa < 0.0f || wb < 0.0f || wc < 0.0f) continue;
                const float inverse = wa * za + wb * zb + wc * zc;
                float& nearest = best[static_cast<size_t>(row) * size + column];
                if (inverse > nearest) {
                    nearest = inverse;
                    ids[static_cast<size_t>(row) * size + column] = face;
                }
            }
        }
    }
}
