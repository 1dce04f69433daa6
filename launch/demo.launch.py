"""The three nodes and one prompt, which is sent when the generator has its model.

ros2 launch llamo_ros demo.launch.py text:="a person waves the left hand" robot:=unitree_g1
"""

import sys
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory("llamo_ros"))
    arguments = [
        DeclareLaunchArgument("text", default_value="a person waves the left hand", description="What to do."),
        DeclareLaunchArgument(
            "robot", default_value="unitree_g1", description="Robot profile: a name or a .yaml file."
        ),
        DeclareLaunchArgument(
            "checkpoint", default_value="llamo-mini", description="Name of a shipped model, or a checkpoint folder."
        ),
    ]
    nodes = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share / "launch" / "llamo.launch.py")),
        launch_arguments={name: LaunchConfiguration(name) for name in ("robot", "checkpoint")}.items(),
    )
    # Not `ros2 topic pub`: a text with quotes or colons would have to be written as YAML.
    prompt = ExecuteProcess(
        cmd=[sys.executable, "-m", "llamo_ros.nodes.send_text", "--listeners", "2", "--", LaunchConfiguration("text")],
        output="screen",
    )
    return LaunchDescription([*arguments, nodes, prompt])
