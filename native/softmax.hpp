// The two sweeps over a vocabulary that a softmax takes.
#pragma once

#include <span>

namespace steerx {

float largest(std::span<const float> values); // of one at least

struct Moments {
    double sum = 0.0;      // sum of exp(x - max)
    double weighted = 0.0; // sum of (x - max) exp(x - max)
};

// Of logits (n,) whose largest is max; `weighted` only where it is asked for. Where p (n,) is given, it gets
// exp(x - max); the sums are the same to the last bit.
Moments softmax_moments(std::span<const float> logits, float max, bool with_weighted, float *p);

} // namespace steerx
