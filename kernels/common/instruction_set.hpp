// Which instructions a kernel may use: found at load time, and each can be asked for by name.

#pragma once

#include <string>
#include <vector>

namespace llamo {

enum class InstructionSet { kPortable, kAvx2, kAvx512, kAvx512Vnni };

// Those of this machine by name, the fastest first; "portable" is always the last.
std::vector<std::string> instruction_sets();

// The one of that name. Throws std::invalid_argument if this machine does not have it.
InstructionSet instruction_set_named(const std::string& name);

}  // namespace llamo
