#include "mixing.hpp"
#include "softmax.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>

namespace steerx {
namespace {

constexpr double minus_infinity = -std::numeric_limits<double>::infinity();

double log_add(double a, double b) {
    const double larger = std::max(a, b);
    return larger == minus_infinity ? larger : larger + std::log1p(std::exp(std::min(a, b) - larger));
}

// Block by block, so that logits which lie apart are read once.
double log_sum_exp(const Logits &logits) {
    std::array<float, 1024> block;
    double sum = 0.0; // of exp(x - max)
    double max = minus_infinity;
    for (size_t begin = 0; begin < logits.n; begin += block.size()) {
        const std::span values = std::span(block).first(std::min(block.size(), logits.n - begin));
        for (size_t i = 0; i < values.size(); ++i) {
            values[i] = logits.first[(begin + i) * logits.step];
        }
        const float highest = largest(values);
        if (highest == minus_infinity) {
            continue;
        }
        const double new_max = std::max<double>(max, highest);
        sum *= std::exp(max - new_max);
        sum += std::exp(highest - new_max) * softmax_moments(values, highest, false, nullptr).sum;
        max = new_max;
    }
    return max + std::log(sum);
}

} // namespace

void weigh(std::span<const float> similarities, std::span<const float> weights, const Softness &softness,
           std::span<float> shares, std::span<float> gates) {
    const size_t k = gates.empty() ? 0 : shares.size() / gates.size();
    for (size_t row = 0; row < gates.size(); ++row) {
        const float highest = similarities[row * k];
        double sum = 0.0;
        for (size_t i = row * k; i < (row + 1) * k; ++i) {
            shares[i] = std::exp((similarities[i] - highest) / softness.temperature);
            sum += shares[i];
        }
        for (size_t i = row * k; i < (row + 1) * k; ++i) {
            shares[i] = static_cast<float>(shares[i] / sum) * weights[i];
        }
        gates[row] = std::clamp((highest - softness.closed_at) / (softness.open_at - softness.closed_at), 0.0f, 1.0f);
    }
}

void mix(const Logits &logits, std::span<const int32_t> tokens, std::span<const float> shares, double weight) {
    std::map<size_t, double> offered;
    double total = 0.0;
    for (size_t i = 0; i < tokens.size(); ++i) {
        const auto token = static_cast<size_t>(tokens[i]);
        if (token >= logits.n) {
            throw std::out_of_range("token " + std::to_string(tokens[i]) + " is not in the vocabulary of " +
                                    std::to_string(logits.n));
        }
        if (weight * shares[i] > 0.0) {
            offered[token] += weight * shares[i];
            total += weight * shares[i];
        }
    }
    if (offered.empty()) {
        return;
    }
    // The model's share is a factor of all logits, which changes nothing.
    const double of_one = log_sum_exp(logits) - std::log1p(-total);
    for (const auto &[token, share] : offered) {
        float &logit = logits.first[token * logits.step];
        logit = static_cast<float>(log_add(logit, of_one + std::log(share)));
    }
}

} // namespace steerx
