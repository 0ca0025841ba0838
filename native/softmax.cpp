#include "softmax.hpp"
#include "widest.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>

namespace steerx {
namespace {

// exp(x) for x <= 0, to about 2e-7 relative, in a form that compilers vectorize: std::exp is not.
inline float exp_nonpositive(float x) {
    x = std::max(x, -87.0f);
    const float rounded = x * 1.44269504f - 0.5f; // floor(x / ln 2 + 0.5) without a call: x <= 0
    const auto exponent = static_cast<int32_t>(rounded);
    const auto scale = static_cast<float>(exponent);
    const float r = (x - scale * 0.693359375f) - scale * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * std::bit_cast<float>((exponent + 127) << 23);
}

// Float lanes are summed in short blocks, and the blocks in double, so the error stays near 1e-7.
template <bool WithWeighted, bool KeepP>
STEERX_WIDEST Moments moments(const float *logits, size_t n, float max, float *p) {
    constexpr size_t lanes = 16;
    constexpr size_t block = 1024;
    Moments total;
    size_t i = 0;
    while (i + lanes <= n) {
        const size_t end = std::min(i + block, n - (n - i) % lanes);
        std::array<float, lanes> sum{};
        std::array<float, lanes> weighted{};
        for (; i < end; i += lanes) {
            for (size_t lane = 0; lane < lanes; ++lane) {
                const float x = logits[i + lane] - max;
                const float e = exp_nonpositive(x);
                sum[lane] += e;
                if constexpr (WithWeighted) {
                    weighted[lane] += std::max(x, -87.0f) * e;
                }
                if constexpr (KeepP) {
                    p[i + lane] = e;
                }
            }
        }
        total.sum += std::accumulate(sum.begin(), sum.end(), 0.0);
        total.weighted += std::accumulate(weighted.begin(), weighted.end(), 0.0);
    }
    for (; i < n; ++i) {
        const float x = std::max(logits[i] - max, -87.0f);
        const float e = exp_nonpositive(x);
        total.sum += e;
        total.weighted += x * e;
        if constexpr (KeepP) {
            p[i] = e;
        }
    }
    return total;
}

} // namespace

STEERX_WIDEST float largest(std::span<const float> values) {
    const size_t n = values.size();
    constexpr size_t lanes = 16;
    std::array<float, lanes> best;
    best.fill(values[0]);
    size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        for (size_t lane = 0; lane < lanes; ++lane) {
            best[lane] = values[i + lane] > best[lane] ? values[i + lane] : best[lane];
        }
    }
    for (; i < n; ++i) {
        best[0] = std::max(best[0], values[i]);
    }
    return *std::max_element(best.begin(), best.end());
}

Moments softmax_moments(std::span<const float> logits, float max, bool with_weighted, float *p) {
    const size_t n = logits.size();
    if (p == nullptr) {
        return with_weighted ? moments<true, false>(logits.data(), n, max, p)
                             : moments<false, false>(logits.data(), n, max, p);
    }
    return with_weighted ? moments<true, true>(logits.data(), n, max, p)
                         : moments<false, true>(logits.data(), n, max, p);
}

} // namespace steerx
